"""The registry: one immutable record per published checkpoint, kept as data in `zoo.json`. Needs no torch.

A name such as `cifar10_kappa025` means its newest version; `cifar10_kappa025.v1` stays what it was for ever. Retrained
weights get a new version: `add_record` refuses other bytes under a name and version that exist.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

from acert_zoo._files import locked, read_text, write_atomically
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.zoo.model_info import HubLocation, Metric, ModelInfo
from acert_zoo.zoo.selection import select

__all__ = [
    "REGISTRY_PATH",
    "HubLocation",
    "Metric",
    "ModelInfo",
    "add_record",
    "at_largest_radius",
    "find_by_sha256",
    "list_models",
    "model_info",
    "read_registry",
    "select_models",
    "set_hub",
]

SCHEMA_VERSION = 1
PACKAGE = Path(__file__).parents[1]
REGISTRY_PATH = PACKAGE / "zoo.json"
_VERSIONED = re.compile(r"(?P<name>.+)\.v(?P<version>[1-9][0-9]{0,5})")
_REQUIRED = ("dataset", "method", "file", "sha256", "size", "parameters", "license", "metrics")


def read_registry(path: str | os.PathLike[str] = REGISTRY_PATH) -> tuple[ModelInfo, ...]:
    """All records of a registry file, sorted by name and version.

    Raises:
        InvalidInputError, UnknownNameError: no such file, no registry of a known schema, or a record is not valid.
    """
    try:
        return _parse(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the registry {os.fspath(path)!r} cannot be read: {error}") from None


@lru_cache(maxsize=4)
def _parse(text: str) -> tuple[ModelInfo, ...]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"the registry is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise InvalidInputError(f"the registry's schema_version is not {SCHEMA_VERSION}")
    if not isinstance(document.get("models"), list):
        raise InvalidInputError("the registry has no list 'models'")
    models = sorted(map(ModelInfo.from_dict, document["models"]), key=lambda m: (m.name, m.version))
    names = [m.versioned_name for m in models]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise InvalidInputError(f"the registry names {', '.join(sorted(twice))} twice")
    return tuple(models)


def list_models(
    pattern: str | None = None,
    *,
    dataset: str | None = None,
    method: str | None = None,
    where: str | Sequence[str] = (),
    sort: str | None = None,
    all_versions: bool = False,
) -> list[str]:
    """Names of the registered checkpoints, sorted by name unless `sort` says otherwise.

    Args:
        pattern: only names that match, with wildcards: "cifar10_*".
        dataset, method: only those, wildcards allowed.
        where: only those for which the condition, or all of several, holds: "accuracy>70", "certified@2/255>=30".
        sort: a field such as "certified@2/255": the best first; "-accuracy" turns the order round.
        all_versions: every version, as `name.vN`; by default each name once (it means its newest version).

    Raises:
        UnknownNameError: a name, data set, method or field that does not exist; InvalidInputError: no condition.
    """
    chosen = select_models(pattern, dataset=dataset, method=method, where=where, sort=sort, all_versions=all_versions)
    return [m.versioned_name if all_versions else m.name for m in chosen]


def select_models(
    pattern: str | None = None,
    *,
    dataset: str | None = None,
    method: str | None = None,
    where: str | Sequence[str] = (),
    sort: str | None = None,
    all_versions: bool = False,
) -> list[ModelInfo]:
    """The records behind `list_models`, by default the newest version of each name."""
    models = _bundled()
    newest = {m.name: m for m in models}
    return select(
        models if all_versions else newest.values(), pattern, dataset=dataset, method=method, where=where, sort=sort
    )


def model_info(name: str) -> ModelInfo:
    """The record of a registered checkpoint, by `name` (newest version) or `name.vN`.

    Raises:
        UnknownNameError: there is none; the message suggests near names.
    """
    models = _bundled()
    same = [m for m in models if m.name == name]
    if same:
        return same[-1]
    match = _VERSIONED.fullmatch(name) if isinstance(name, str) else None
    versions = [m for m in models if match and m.name == match["name"]]
    for m in versions:
        if match and m.version == int(match["version"]):
            return m
    known = [m.versioned_name for m in versions] if versions else {m.name for m in models}
    raise UnknownNameError.near("model", name, known)


def at_largest_radius(models: Iterable[ModelInfo]) -> list[ModelInfo]:
    """Those of `models` whose eps_max is the largest of their data set, in their order: ACR in % of eps_max compares
    only among these. No eps_max counts as 0."""
    radii = [(m, parse_eps(m.eps_max or 0)) for m in models]
    largest: dict[str | None, Fraction] = {}
    for m, eps in radii:
        largest[m.dataset] = max(eps, largest.get(m.dataset, eps))
    return [m for m, eps in radii if eps == largest[m.dataset]]


def find_by_sha256(sha256: str) -> ModelInfo | None:
    """The registered checkpoint whose file has this digest, or None."""
    return next((m for m in reversed(_bundled()) if m.sha256 == sha256), None)


def add_record(path: str | os.PathLike[str], record: Mapping[str, Any] | ModelInfo) -> ModelInfo:
    """Adds one record to the registry file `path`, atomically; returns it.

    A record of the same name, version and sha256 is replaced (new metrics, say); its Hub location is kept where the
    new record has none.

    Raises:
        InvalidInputError: the record is incomplete or not valid, or its name and version exist with other weights.
    """
    info = ModelInfo.from_dict(record.to_dict() if isinstance(record, ModelInfo) else record)
    values = info.to_dict()
    lacking = [key for key in _REQUIRED if values[key] in (None, [], {}, "")]
    if info.kind == "model" and not info.expected_logits:
        lacking.append("expected_logits")
    if lacking:
        raise InvalidInputError(f"{info.versioned_name}: the registry also needs {', '.join(lacking)}")
    return _update(Path(path), info)


def set_hub(path: str | os.PathLike[str], name: str, repo_id: str, revision: str) -> ModelInfo:
    """Records where the checkpoint `name.vN` was published; returns the new record."""
    same = [m for m in read_registry(path) if name in (m.name, m.versioned_name)]
    if not same:
        raise UnknownNameError.near("model", name, [m.versioned_name for m in read_registry(path)])
    values = {**same[-1].to_dict(), "hub": {"repo_id": repo_id, "revision": revision}}
    return _update(Path(path), ModelInfo.from_dict(values))


def _bundled() -> tuple[ModelInfo, ...]:
    return read_registry(REGISTRY_PATH)


def _update(path: Path, info: ModelInfo) -> ModelInfo:
    with locked(path):
        models = {m.versioned_name: m for m in read_registry(path)}
        old = models.get(info.versioned_name)
        if old is not None and old.sha256 != info.sha256:
            raise InvalidInputError(
                f"{info.versioned_name} exists with other weights (sha256 {old.sha256}); names are immutable: "
                f"give the new weights version {max(m.version for m in models.values() if m.name == info.name) + 1}"
            )
        if old is not None and info.hub is None:
            info = ModelInfo.from_dict({**info.to_dict(), "hub": old.hub})
        models[info.versioned_name] = info
        write_atomically(path, _format(models.values()).encode())
    return info


def _format(models: Iterable[ModelInfo]) -> str:
    """The registry as JSON: one line a key and a metric, so that differences read well."""
    blocks = []
    for m in sorted(models, key=lambda m: (m.name, m.version)):
        lines = []
        for key, value in m.to_dict().items():
            if key == "metrics" and value:
                rows = ",\n".join(f"        {json.dumps(row)}" for row in value)
                lines.append(f'      "{key}": [\n{rows}\n      ]')
            else:
                lines.append(f'      "{key}": {json.dumps(value, allow_nan=False)}')
        blocks.append("    {\n" + ",\n".join(lines) + "\n    }")
    inner = "\n" + ",\n".join(blocks) + "\n  " if blocks else ""
    return f'{{\n  "schema_version": {SCHEMA_VERSION},\n  "models": [{inner}]\n}}\n'
