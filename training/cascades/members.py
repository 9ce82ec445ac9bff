"""What is known of the models that a cascade may be made of: their labels and radii on the validation split."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

import acert_zoo
from acert_zoo.bounds.radius_search import RadiusSearch
from acert_zoo.data import datasets
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.tracing import trace
from acert_zoo.zoo.model import AcertModel
from acert_zoo.zoo.model_info import ModelInfo
from training.cascades.search import Measured
from training.results.zoo_folder import write_atomic

BATCH = 250


@dataclass(frozen=True, eq=False)
class Members:
    """The registered single models of a data set, as measured on its validation split.

    Radii count up to `cap`, the largest eps_max among those that were trained to be certified (`robust`).
    """

    infos: dict[str, ModelInfo]
    robust: list[Measured]
    accurate: list[Measured]
    truth: np.ndarray  # labels [N]
    cap: str


def measure_members(dataset: str, data_root: str | None, cache: Path, *, show: bool = False) -> Members:
    """Measures every registered model of `dataset` that the folder `cache` does not know."""
    infos = {info.name: info for info in members_of(dataset)}
    cap = cap_of(list(infos.values()))
    images, truth = validation(dataset, data_root)
    robust: list[Measured] = []
    accurate: list[Measured] = []
    for info in infos.values():
        model = acert_zoo.load_model(info.name)
        assert isinstance(model, AcertModel)
        (accurate if info.method == "standard" else robust).append(measure_cached(model, images, cache, show=show))
    return Members(infos, robust, accurate, truth, cap)


@torch.no_grad()
def measure(model: AcertModel, images: Tensor, *, show: bool = False) -> Measured:
    """Labels, and float32 IBP radii of those labels (0 for standard training, which has none worth the time)."""
    assert model.info is not None
    network = trace(model).detach()
    robust = model.info.method != "standard"
    find = RadiusSearch(network, "float32", rtol=1e-4) if robust else None
    labels, radii = [], []
    parts = images.split(BATCH)
    for part in track(parts, model.info.versioned_name, console=Console(stderr=True), disable=not show, transient=True):
        logits = network(part)
        labels.append(logits.argmax(1))
        radii.append(find(part, labels[-1], logits).radius if find else torch.zeros(len(part), dtype=torch.float64))
    return Measured(model.info.name, torch.cat(labels).numpy(), torch.cat(radii).numpy())


def measure_cached(model: AcertModel, images: Tensor, cache: Path, *, show: bool = False) -> Measured:
    """`measure`, kept in the folder `cache` under the digest of the weights."""
    assert model.info is not None
    path = cache / f"{model.info.versioned_name}-{model.weights_sha256[:16]}-{len(images)}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return Measured(model.info.name, kept["label"], kept["radius"])
    found = measure(model, images, show=show)
    buffer = io.BytesIO()
    np.savez(buffer, label=found.label, radius=found.radius)
    write_atomic(path, buffer.getvalue())
    return found


def validation(dataset: str, data_root: str | None) -> tuple[Tensor, np.ndarray]:
    """The validation split as float32 pixels and labels."""
    images, labels = datasets.load_split(dataset, "val", data_root)
    return datasets.to_pixels(np.array(images)), np.array(labels)


def members_of(dataset: str) -> list[ModelInfo]:
    """The registered single models of a data set."""
    infos = [acert_zoo.model_info(name) for name in acert_zoo.list_models(dataset=dataset)]
    return [info for info in infos if info.kind == "model"]


def cap_of(infos: Sequence[ModelInfo]) -> str:
    """The largest eps_max of certifiably trained members, as text: radii count up to there."""
    caps = {info.eps_max for info in infos if info.eps_max and info.method != "standard"}
    if not caps:
        raise InvalidInputError("a cascade needs a member with an eps_max: one that was trained to be certified")
    return max(caps, key=parse_eps)
