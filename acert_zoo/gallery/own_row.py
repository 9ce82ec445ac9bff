"""The row of a model of one's own: certified on a test set as the zoo's models are, for the gallery to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from acert_zoo._version import __version__
from acert_zoo.certificates.results import Certificates
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.errors import InvalidInputError, WeightsError
from acert_zoo.gallery.eps_grid import eps_grid
from acert_zoo.network.architectures import build
from acert_zoo.network.state_dicts import convert_state_dict
from acert_zoo.zoo.weights import read_tensors, read_verified

FORMAT = "acert-zoo-evaluation"
SCHEMA_VERSION = 1


def model_from_state_dict(path: Path, arch: str, arguments: dict[str, Any], info: DatasetInfo) -> nn.Module:
    """The architecture `arch` for a data set with the tensors of a .safetensors file, in eval mode.

    Args:
        arguments: of the architecture; input shape, classes, mean and std are the data set's unless named.

    Raises:
        WeightsError: not a safetensors file, or its tensors are not those of the network.
        UnknownNameError, InvalidInputError: no such architecture, or arguments that it does not take.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{str(path)!r} is no .safetensors file, and pickled weights are not opened here; convert it once with: "
            'python -c "import torch, safetensors.torch as s; from acert_zoo.network.state_dicts import '
            "unwrap_checkpoint as u; s.save_file(u(torch.load('FILE', weights_only=True, map_location='cpu')), "
            "'FILE.safetensors')\""
        )
    facts = {"input_shape": info.input_shape, "num_classes": info.num_classes, "mean": info.mean, "std": info.std}
    tensors = read_tensors(read_verified(path, None, None), str(path))
    if any(key.endswith("running_var") for key in tensors):
        arguments = {"batchnorm": True, **arguments}
    try:
        model = build(arch, **{**facts, **arguments})
    except TypeError as error:
        raise InvalidInputError(f"the architecture {arch} with {arguments}: {error}") from None
    model.load_state_dict(convert_state_dict(tensors, model), strict=True)
    return model.eval()


def parse_arch_arguments(text: str | None) -> dict[str, Any]:
    """The arguments of an architecture from a JSON object such as '{"width": 32}'."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidInputError(f"--arch-args {text!r} is not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise InvalidInputError(f'--arch-args {text!r}: expected a JSON object such as {{"width": 32}}')
    return arguments


def own_row(name: str, result: Certificates, info: DatasetInfo, parameters: int) -> dict[str, Any]:
    """What the page "Compare your own" reads: figures in percent, and the number of certified images at each of the
    data set's stops of eps."""
    if not len(result):
        raise InvalidInputError("no images were certified")
    grid = eps_grid(info)
    proved = {eps: 100 * result.certified_accuracy(eps) for eps in info.reported_eps}
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "package_version": __version__,
        "name": name,
        "dataset": info.name,
        "split": result.split,
        "n": len(result),
        "accuracy": 100 * result.accuracy,
        "certified_accuracy": proved,
        "acr": result.acr_percent(info.eps_max),
        "eps_max": info.eps_max,
        "verifier": result.header.method,
        "rounding": result.rounding,
        "parameters": parameters,
        "network_sha256": result.header.network_sha256,
        "counts": grid.counts(result.radius.numpy()),
        "step": grid.text(grid.step),
    }
