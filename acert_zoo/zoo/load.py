"""From a name to a verified model or cascade: `load_model`.

Cascade files name their members by registered name and digest, so that they reach no other place than the registry.
"""

from __future__ import annotations

import os

from acert_zoo._json import parse_json
from acert_zoo.cascades.cascade import Cascade
from acert_zoo.errors import (
    InvalidInputError,
    UnknownNameError,
    UnsoundSettingError,
    UnsupportedLayerError,
    WeightsError,
)
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.zoo import registry, resolve
from acert_zoo.zoo.download import DownloadOptions
from acert_zoo.zoo.expected_logits import check_expected_logits
from acert_zoo.zoo.interpolation import interpolate, neighbours
from acert_zoo.zoo.model import AcertModel, assemble

_MAX_MEMBERS = 32


def load_model(
    name: str | os.PathLike[str],
    *,
    kappa: float | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    token: str | bool | None = None,
    progress: bool = True,
) -> AcertModel | Cascade:
    """The model `name`, verified, in eval mode.

    Args:
        name: a registered name (`cifar10_kappa025`, `cifar10_kappa025.v1`), `hf-hub:owner/repo[@revision]`, a folder
            with config.json and model.safetensors, or a .safetensors file.
        kappa: for any value between those of a family, whose name is then `name` ("cifar10", "cifar10_ibp"): a
            registered kappa gives that model, another one the average of its two neighbours' weights (see
            `acert_zoo.interpolate`).
        revision: branch, tag or commit of a Hub repository; registered models have theirs pinned.
        cache_dir: huggingface_hub's cache, by default its own ($HF_HOME).
        local_files_only: never use the network (HF_HUB_OFFLINE=1 does the same).
        force_download: fetch again what is in the cache.
        token: Hub token; True, or None, for the one of `hf auth login`; False for none.
        progress: whether downloads show a progress bar.

    Raises:
        UnknownNameError: `name` means nothing, or its architecture is not of this package.
        InvalidInputError: `name` is neither a string nor a path, or the family has no models around `kappa`.
        DownloadError: the Hub cannot be reached, refuses, or has no such file.
        WeightsError: missing, truncated or altered file, other tensors or other logits than
            expected.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise InvalidInputError(f"a model is loaded by name, such as 'cifar10_kappa025', not by {name!r:.80}")
    options = DownloadOptions(cache_dir, local_files_only, force_download, token, progress)
    if kappa is not None:
        return _between(os.fspath(name), kappa, revision, options)
    located = resolve.locate(name, revision, options)
    if located.info.kind == "cascade":
        return _assemble_cascade(located, options)
    return assemble(located)


def _between(family: str, kappa: float, revision: str | None, options: DownloadOptions) -> AcertModel:
    """The model of `family` at `kappa`, between its registered neighbours."""
    if revision is not None:
        raise InvalidInputError("kappa= names registered models, whose revisions are pinned; leave revision out")
    low, high, share = neighbours(family, kappa)
    first = assemble(resolve.locate(low.versioned_name, options=options))
    if low == high:
        return first
    return interpolate(first, assemble(resolve.locate(high.versioned_name, options=options)), share)


@under_standard_defaults
def _assemble_cascade(located: resolve.Located, options: DownloadOptions) -> Cascade:
    """A cascade from its JSON: {"schema_version": 1, "members": [{"name": NAME.vN, "sha256": ...}], "gates": [eps]}."""
    source = str(located.path)
    try:
        document = parse_json(located.content.decode("utf-8"))
        if document["schema_version"] != 1:
            raise ValueError("its schema_version is not known")
        named = [(str(m["name"]), str(m["sha256"])) for m in document["members"]]
        gates = [str(gate) for gate in document["gates"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{source} is not a cascade file: {error!r}") from error
    if len(named) > _MAX_MEMBERS:
        raise WeightsError(f"{source} names {len(named)} members; at most {_MAX_MEMBERS} are loaded")
    members = []
    for name, sha256 in named:
        try:
            registry.model_info(name)  # members are registered checkpoints: a cascade file reaches no other place
        except UnknownNameError as error:
            raise UnknownNameError(
                f"{source} names a member that this release of acert-zoo does not have (a newer one may): {error}"
            ) from None
        member = resolve.locate(name, options=options)
        if member.info.kind != "model" or member.info.sha256 != sha256:
            raise WeightsError(f"{source}: member {name} is not the model with sha256 {sha256}")
        members.append(assemble(member))
    try:
        cascade = Cascade(members, gates).eval()
    except (InvalidInputError, UnsoundSettingError, UnsupportedLayerError) as error:
        raise WeightsError(f"{source} is no cascade that can be built: {error}") from error
    cascade.info = located.info
    if located.info.expected_logits is not None and cascade.input_shape is not None:
        check_expected_logits(cascade, cascade.input_shape, located.info.expected_logits, source)
    return cascade
