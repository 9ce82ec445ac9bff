"""The one place where the name of a model becomes a file: bundled, on the Hub, a folder, or a file. Needs no torch.

| name | meaning |
|---|---|
| `cifar10_kappa025`, `cifar10_kappa025.v1` | a registered checkpoint: the bundled file, else its pinned Hub revision |
| `hf-hub:owner/repo`, `hf-hub:owner/repo@revision` | a Hub repository with config.json and model.safetensors |
| a folder | with config.json and model.safetensors, as `AcertModel.save_pretrained` writes it |
| `FILE.safetensors` | a weights file that names its architecture in its metadata, or is one of the registry |
| `FILE.json` | a cascade file, as `Cascade.save` writes it |
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from acert_zoo._files import is_plain_file
from acert_zoo._json import parse_json
from acert_zoo.errors import InvalidInputError, UnknownNameError, WeightsError
from acert_zoo.zoo import download, registry, weights
from acert_zoo.zoo.download import DEFAULT_OPTIONS, DownloadOptions
from acert_zoo.zoo.model_info import ModelInfo

HUB_PREFIX = "hf-hub:"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CASCADE_NAME = "cascade.json"
CONFIG_FORMAT = "acert-zoo"
_UNSAFE = ("pytorch_model.bin", "model.bin", "model.pt", "model.pth", "pytorch_model.pt", "model.pkl")


@dataclass(frozen=True)
class Located:
    """A model's record, the content of its file (digest checked), and where that file lies."""

    info: ModelInfo
    content: bytes
    path: Path


def locate(
    name: str | os.PathLike[str], revision: str | None = None, options: DownloadOptions = DEFAULT_OPTIONS
) -> Located:
    """Finds, fetches and verifies the file that `name` means; see the module's table.

    Raises:
        UnknownNameError: `name` means nothing; the message suggests near names.
        DownloadError: the Hub cannot give the file.
        WeightsError: the file is not the expected one, or no record says what it is.
    """
    text = os.fspath(name)
    if not isinstance(text, str):
        raise InvalidInputError(f"a model is named by a string or a path, got {name!r}")
    if text.startswith(HUB_PREFIX):
        repo_id, _, given = text[len(HUB_PREFIX) :].partition("@")
        if given and revision and given != revision:
            raise InvalidInputError(f"{text!r} and revision={revision!r} name two revisions")
        return _from_hub(repo_id, given or revision, options)
    if revision is not None:
        raise InvalidInputError(f"revision={revision!r} applies to Hub repositories ({HUB_PREFIX}owner/repo) only")
    try:
        info = registry.model_info(text)
    except UnknownNameError:
        if os.path.isdir(text):
            return _from_folder(Path(text))
        if text.endswith(".safetensors"):
            return _from_file(Path(text))
        if text.endswith(".json"):
            return _from_cascade_file(Path(text))
        if os.sep in text or "/" in text:
            hint = f"; for a Hub repository write {HUB_PREFIX}{text}" if text.count("/") == 1 else ""
            raise UnknownNameError(f"no model {text!r}: there is no such folder{hint}") from None
        raise
    return _registered(info, options)


def _registered(info: ModelInfo, options: DownloadOptions) -> Located:
    path = registry.PACKAGE / (info.file or "")
    if not info.file or not is_plain_file(path):
        if info.hub is None:
            raise WeightsError(f"the bundled file {path} of {info.versioned_name} is missing; install acert-zoo again")
        name = CASCADE_NAME if info.kind == "cascade" else WEIGHTS_NAME
        path = download.download(info.hub.repo_id, name, info.hub.revision, options)
    return Located(info, _verified(path, info), path)


def _verified(path: Path, info: ModelInfo) -> bytes:
    """The file's bytes; of a cascade, which is text, those of its canonical layout, to which its digest belongs."""
    if info.kind == "cascade":
        return weights.read_verified_json(path, info.sha256)
    return weights.read_verified(path, info.sha256, info.size)


def _from_hub(repo_id: str, revision: str | None, options: DownloadOptions) -> Located:
    download.check_repo_id(repo_id)
    try:
        config = download.download(repo_id, CONFIG_NAME, revision, options)
        info = read_config(config, repo_id)
        # The weights of the very commit whose config was read, should the branch have moved in between.
        pinned = download.commit_of(config) or revision
        name = CASCADE_NAME if info.kind == "cascade" else WEIGHTS_NAME
        path = download.download(repo_id, name, pinned, options)
    except download.FileNotInRepositoryError as error:
        raise WeightsError(
            f"{repo_id} is not an acert-zoo repository: it must hold {CONFIG_NAME} and {WEIGHTS_NAME}. Pickled weights "
            f"({', '.join(_UNSAFE[:2])}, ...) are never loaded, because reading them can run any code. ({error})"
        ) from error
    return Located(info, _verified(path, info), path)


def _from_folder(folder: Path) -> Located:
    config = folder / CONFIG_NAME
    if not is_plain_file(config):
        raise WeightsError(f"the folder {folder} holds no {CONFIG_NAME}; {CONFIG_NAME} and {WEIGHTS_NAME} are needed")
    info = read_config(config, str(folder))
    path = folder / (CASCADE_NAME if info.kind == "cascade" else WEIGHTS_NAME)
    if not is_plain_file(path):
        unsafe = [name for name in _UNSAFE if (folder / name).exists()]
        refusal = f"; {unsafe[0]} is not loaded: unpickling can run any code" if unsafe else ""
        raise WeightsError(f"the folder {folder} holds no {path.name}{refusal}")
    return Located(info, _verified(path, info), path)


def _from_file(path: Path) -> Located:
    if not path.exists():
        raise WeightsError(f"there is no file {path}")
    content = weights.read_verified(path, None)
    digest = hashlib.sha256(content).hexdigest()
    info = registry.find_by_sha256(digest)
    if info is None:
        metadata = weights.read_metadata(content, str(path))
        if "config" not in metadata:
            raise WeightsError(
                f"{path} is not a registered checkpoint and its metadata has no 'config' that names the architecture: "
                f"put it into a folder as {WEIGHTS_NAME}, with a {CONFIG_NAME} beside it"
            )
        info = parse_config(metadata["config"], str(path), digest_needed=False)
        if info.kind != "model":
            raise WeightsError(f"{path}: a safetensors file holds a model, not a {info.kind}")
        info = replace(info, sha256=digest, size=len(content))
    return Located(info, content, path)


def _from_cascade_file(path: Path) -> Located:
    """A cascade file of one's own (whatever its digest, its members are registered checkpoints of known digest)."""
    if not path.exists():
        raise WeightsError(f"there is no file {path}")
    content = weights.read_verified_json(path, None)
    digest = hashlib.sha256(content).hexdigest()
    info = registry.find_by_sha256(digest) or ModelInfo(
        name="cascade", kind="cascade", arch="cascade", arch_kwargs={}, sha256=digest, size=len(content)
    )
    return Located(info, content, path)


def read_config(path: Path, source: str) -> ModelInfo:
    """The record in a config.json; WeightsError where it is not one of ours or has no digest."""
    return parse_config(
        weights.read_verified(path, None, limit=weights.MAX_JSON).decode("utf-8-sig", "replace"), source
    )


def parse_config(text: str, source: str, *, digest_needed: bool = True) -> ModelInfo:
    """`read_config` of a text; `source` names it in errors."""
    try:
        document = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source}: {CONFIG_NAME} is not JSON ({error})") from None
    if not isinstance(document, dict) or document.pop("format", None) != CONFIG_FORMAT:
        raise WeightsError(
            f'{source}: {CONFIG_NAME} is not of an acert-zoo model ("format": "{CONFIG_FORMAT}" is missing)'
        )
    if document.pop("schema_version", None) != registry.SCHEMA_VERSION:
        raise WeightsError(f"{source}: {CONFIG_NAME} has a schema_version that this release does not know")
    try:
        info = ModelInfo.from_dict(document)
    except (InvalidInputError, UnknownNameError) as error:
        raise WeightsError(f"{source}: {CONFIG_NAME}: {error}") from error
    if digest_needed and (info.sha256 is None or info.size is None):
        raise WeightsError(
            f"{source}: {CONFIG_NAME} gives no sha256 and size of the weights; they are needed to check them"
        )
    return info


def format_config(info: ModelInfo) -> str:
    """The config.json of a record: what `read_config` reads, without the places that only the registry knows."""
    record = {key: value for key, value in info.to_dict().items() if key not in ("file", "hub")}
    document = {"format": CONFIG_FORMAT, "schema_version": registry.SCHEMA_VERSION, **record}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"
