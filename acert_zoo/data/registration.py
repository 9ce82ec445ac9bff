"""What is known of each data set: one registration, a TOML file, for those of the zoo and for one's own alike.

The zoo's registrations lie in `registered/`. One's own is named (`--dataset-file FILE`, `register_dataset`) or lies
beside the data, as `<folder of the data sets>/<name>/dataset.toml`. docs/datasets.md shows one.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from acert_zoo._files import read_text
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import parse_eps

DATA_ENVIRONMENT_VARIABLE = "ACERT_ZOO_DATA"
FILE_NAME = "dataset.toml"
REGISTERED = Path(__file__).with_name("registered")
MAX_BYTES = 4_000_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


def read_registration(path: str | os.PathLike[str]) -> DatasetInfo:
    """The data set that the TOML file at `path` registers; `files` is relative to its folder, which is the default.

    Raises:
        InvalidInputError: no plain TOML file, or a key that is missing, unknown or of a value that cannot be used.
    """
    file = Path(path)
    try:
        values = tomllib.loads(read_text(path, MAX_BYTES))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"data-set file {str(file)!r} cannot be read as TOML: {error}") from None
    try:
        info = _build(values)
    except (InvalidInputError, UnknownNameError) as error:
        raise type(error)(f"data-set file {str(file)!r}: {error}") from None
    files = values.get("files", ".")
    if not isinstance(files, str):
        raise InvalidInputError(f"data-set file {str(file)!r}: files is {files!r}; expected the name of a folder")
    return replace(info, files=file.absolute().parent / files)


def _build(values: Mapping[str, Any]) -> DatasetInfo:
    known = [f.name for f in fields(DatasetInfo)]
    for key in values:
        if key not in known:
            raise UnknownNameError.near("key", key, known)
    missing = [key for key in ("name", "input_shape", "classes", "mean", "std", "eps_max") if key not in values]
    if missing:
        raise InvalidInputError(f"{', '.join(missing)} missing")

    def take(key: str, accepted: bool, what: str) -> Any:
        if not accepted:
            raise InvalidInputError(f"{key} is {values[key]!r:.200}; expected {what}")
        return tuple(values[key]) if isinstance(values[key], list) else values[key]

    shape, classes = values["input_shape"], values["classes"]
    checked: dict[str, Any] = {
        "name": take("name", _is_name(values["name"]), "lower-case letters, digits, '_' and '-', such as 'flowers'"),
        "input_shape": take("input_shape", _is_shape(shape), "[1 or 3, height, width]"),
        "classes": take("classes", _is_names(classes) and len(classes) > 1, "a list of at least two distinct names"),
    }
    channels = shape[0]
    for key in ("mean", "std"):
        numbers = _is_numbers(values[key], channels) and (key == "mean" or min(values[key]) > 0)
        what = f"a list of {channels} numbers" + (" above 0" if key == "std" else "")
        checked[key] = tuple(map(float, take(key, numbers, what)))
    radii = values.get("reported_eps", [values["eps_max"]])
    checked["eps_max"] = take("eps_max", _is_radius(values["eps_max"]), 'a radius in (0, 1] such as "8/255"')
    checked["reported_eps"] = tuple(radii) if _all(radii, _is_radius) else take("reported_eps", False, '["2/255", ...]')
    if "folders" in values:
        ok = _is_names(values["folders"]) and len(values["folders"]) == len(classes)
        checked["folders"] = take("folders", ok, f"a list of {len(classes)} distinct names, one a class")
    if "validation" in values:
        size = values["validation"]
        ok = type(size) in (int, float) and (0 < size < 1 or (size >= 1 and size == int(size)))
        checked["validation"] = take("validation", ok, "a number of images, or a share between 0 and 1")
    if "resize" in values:
        checked["resize"] = take("resize", isinstance(values["resize"], bool), "true or false")
    for key in ("title", "about", "source", "license", "bibtex", "hub_id"):
        if key in values:
            checked[key] = take(key, isinstance(values[key], str), "a text")
    return DatasetInfo(**checked)


def _all(values: Any, accepted: Any) -> bool:
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(map(accepted, values))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_shape(value: Any) -> bool:
    return _all(value, lambda n: type(n) is int and 0 < n <= 4096) and len(value) == 3 and value[0] in (1, 3)


def _is_names(values: Any) -> bool:
    """Whether all are printable names that stay distinct where case, spaces, "_" and "-" do not count."""
    return _all(values, lambda v: isinstance(v, str) and v.strip() and v.isprintable()) and len(
        set(map(folder_key, values))
    ) == len(values)


def _is_numbers(values: Any, n: int) -> bool:
    return _all(values, lambda v: type(v) in (int, float) and math.isfinite(v)) and len(values) == n


def _is_radius(value: Any) -> bool:
    try:
        return isinstance(value, str) and 0 < parse_eps(value) <= 1
    except InvalidInputError:
        return False


def folder_key(name: str) -> str:
    """What of a folder's name tells the class: not its case, nor spaces, "_" and "-"."""
    return "".join(c for c in name.casefold() if c not in " _-")


@lru_cache
def _packaged() -> dict[str, DatasetInfo]:
    infos = (read_registration(path).without_files() for path in sorted(REGISTERED.glob("*.toml")))
    return {info.name: info for info in infos}


_own: dict[str, DatasetInfo] = {}


def register_dataset(file: str | os.PathLike[str] | DatasetInfo) -> DatasetInfo:
    """Makes a data set of one's own known to this process, by its registration file.

    Raises:
        InvalidInputError: the file cannot be used, or another data set has the name already.
    """
    info = file if isinstance(file, DatasetInfo) else read_registration(file)
    there = _own.get(info.name) or _packaged().get(info.name)
    if there is not None and there.without_files() != info.without_files():
        raise InvalidInputError(f"another data set is registered as {info.name!r}; give this one another name")
    _own[info.name] = info
    return info


def register_own(
    data_root: str | os.PathLike[str] | None, file: str | os.PathLike[str] | None, run: Path | None = None
) -> None:
    """Makes known what `file` registers, else what a run's folder does; and what is registered beside its data."""
    if file is not None:
        register_dataset(file)
    elif run is not None and (run / FILE_NAME).is_file():
        register_dataset(run / FILE_NAME)
    for beside in sorted(dataset_root(data_root)[0].glob(f"*/{FILE_NAME}")):
        if beside.parent.name not in _own:
            register_dataset(beside)


def is_own(name: str) -> bool:
    """Whether data set `name` is one that a file of the user's registers, not one of the zoo's."""
    return name in _own


def dataset_names() -> list[str]:
    """Names of the data sets that are known without looking into folders of data."""
    return sorted({*_packaged(), *_own})


def dataset_info(name: str, data_root: str | os.PathLike[str] | None = None) -> DatasetInfo:
    """The facts of data set `name`, which the zoo or this process knows or which is registered beside its data.

    Raises:
        UnknownNameError: there is none.
        InvalidInputError: its registration file cannot be used.
    """
    if name in _own:
        return _own[name]
    if name in _packaged():
        return _packaged()[name]
    beside = dataset_root(data_root)[0] / str(name) / FILE_NAME
    if _is_name(name) and beside.is_file():
        info = read_registration(beside)
        if info.name != name:
            raise InvalidInputError(f"data-set file {str(beside)!r} registers {info.name!r}, not {name!r}")
        return info
    raise UnknownNameError.near("data set", name, dataset_names())


def class_names(dataset: str | None) -> Sequence[str]:
    """Names of the classes of a data set; empty where it is not known."""
    try:
        return dataset_info(dataset).classes if dataset else ()
    except UnknownNameError:
        return ()


def default_root() -> Path:
    """Where data sets go that are downloaded without naming a folder: $XDG_CACHE_HOME/acert-zoo/data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acert-zoo" / "data"


def dataset_root(data_root: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """The folder of the data sets, and whether the user named it."""
    named = data_root or os.environ.get(DATA_ENVIRONMENT_VARIABLE)
    return (Path(named).expanduser(), True) if named else (default_root(), False)
