"""The image wall: certificates of the bundled test images, and what the page tells of each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.bounds.ibp import class_margins
from acert_zoo.certificates.certify import certify
from acert_zoo.certificates.file import read_file
from acert_zoo.certificates.lines import Line
from acert_zoo.data.samples import sample_data, sample_info
from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.tracing import trace
from acert_zoo.zoo.model_info import ModelInfo


def certify_samples(model: nn.Module, info: ModelInfo, path: Path) -> None:
    """Writes the certificate file of all bundled images of the model's data set; goes on with one that is there."""
    images, labels = sample_data(str(info.dataset))
    certify(model, images, labels, out=path, dataset=info.dataset, split="samples")


def wall_document(model: nn.Module, info: ModelInfo, path: Path) -> dict[str, Any]:
    """What `data/walls/NAME.json` holds: every image's certificate, with its line of the file, and its rival class."""
    lines = read_file(path).lines
    texts = path.read_text(encoding="utf-8").splitlines()[1:]
    images, _ = sample_data(str(info.dataset))
    rivals = _rivals(model, images, lines)
    members = info.recipe.get("members", ())
    return {
        "schema_version": 1,
        "name": info.name,
        "model": info.versioned_name,
        "images": [
            {
                "label": line.label,
                "prediction": line.prediction,
                "radius": float(line.radius),
                "radius_text": line.radius,
                "rival": rival,
                "member": members[line.route] if isinstance(line.route, int) and line.route < len(members) else None,
                "method": line.method,
                "rounding": line.rounding,
                "line": text,
            }
            for line, text, rival in zip(lines, texts, rivals, strict=True)
        ],
    }


@torch.no_grad()
def _rivals(model: nn.Module, images: Tensor, lines: tuple[Line, ...] | list[Line]) -> list[int | None]:
    """For each certified image the class whose margin bound is smallest at the radius: the first that could take over.

    Of a cascade it is that of the member which answered. None where nothing is certified, or no bounds exist.
    """
    rivals: list[int | None] = [None] * len(lines)
    routes = {line.route if isinstance(line.route, int) else None for line in lines}
    for route in routes:
        network_of = model if route is None else model.members[route]  # type: ignore[union-attr,index]
        try:
            network = trace(network_of).detach()  # type: ignore[arg-type]
        except UnsupportedLayerError:
            continue
        own = [i for i, line in enumerate(lines) if line.route == route and float(line.radius) > 0]
        for i in own:  # one at a time: a residual network's bounds of all images take gigabytes
            line = lines[i]
            label = torch.tensor([line.label])
            margins = class_margins(network, images[i : i + 1], label, float(line.radius))[0]
            rivals[i] = int(margins.nan_to_num(nan=torch.inf).argmin())
    return rivals


def sample_facts(dataset: str) -> dict[str, Any]:
    """What pages need to show the bundled images of a data set."""
    info = sample_info(dataset)
    return {
        "tile": list(info.tile),
        "columns": info.columns,
        "classes": [name.split(",")[0] for name in info.classes],
        "labels": list(info.labels),
    }
