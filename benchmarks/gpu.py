"""What a GPU gives: python benchmarks/gpu.py [probe|step|certify ...] [--device cuda] [--json FILE]

probe: whether float64 proofs may run there, and why not.
step: milliseconds of a training step of a recipe at full radius by its settings, and the share of the device's peak,
by the operations that docs/training.md counts; random weights, no data set needed.
certify: images a second on the CPU and on the device (the test split, or the bundled images, repeated), how far the
radii differ, and the same of one float64 proof.

Each part takes minutes at most and needs nothing but the repository. On a CPU (`--device cpu`) it runs as well, with
nothing to find out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _measure
import click
import torch
from training_step import small_root

import acert_zoo
from acert_zoo.bounds.placed_proofs import PlacedProofs
from acert_zoo.bounds.proof_device import refused
from acert_zoo.bounds.search_device import search_device
from acert_zoo.data.registration import dataset_info
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from training.recipes.recipe import Recipe, load_recipe
from training.run.loop import Trainer

Rows = Iterator[tuple[str, Any, str]]
PARTS = ("probe", "step", "certify")
SETTINGS = (
    ("float32", ()),
    ("tf32", ("precision=tf32",)),
    ("bfloat16", ("precision=bfloat16",)),
    ("bfloat16, compiled", ("precision=bfloat16", "compile=true")),
    ("bfloat16, compiled, replayed", ("precision=bfloat16", "compile=true", "cuda_graph=true")),
)
FULL_RADIUS = ("radius.first_epochs=0", "radius.ramp_epochs=0", "validation_images=1", "optimizer.lr=1e-5")


def probe(device: torch.device) -> Rows:
    yield "float64 proofs", refused(device) or f"on {device}", ""


def operations(recipe: Recipe, network: Network, shape: tuple[int, ...]) -> int:
    """Of a step: the clean pass and its gradient, the bounds' two convolutions a layer and theirs, the search."""
    passes = 3 + 6 + 2 * (recipe.radius.evaluations if recipe.objective == "acert" else 0)
    return 2 * passes * recipe.batch_size * network.multiply_adds(shape)


def step(name: str, changes: tuple[str, ...], device: torch.device, steps: int, peak: float) -> Rows:
    for label, settings in SETTINGS:
        recipe = load_recipe(name, (*FULL_RADIUS, *settings, *changes))
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(recipe, small_root(Path(folder), recipe, 4 * recipe.batch_size), device)
        network = trainer.network.map_tensors(lambda t: t.detach().cpu())
        count = operations(recipe, network, dataset_info(recipe.dataset).input_shape)
        for _ in range(10):
            trainer.train_step()
        _wait(device)
        began = time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        _wait(device)
        seconds = (time.perf_counter() - began) / steps
        yield f"step, {label}: ms", 1000 * seconds, ""
        yield f"step, {label}: share of the peak, %", 100 * count / seconds / peak, ""


def certify(model: str, n: int, device: torch.device) -> Rows:
    loaded = acert_zoo.load_model(model)
    assert loaded.info is not None
    images, labels, source = _measure.test_images(str(loaded.info.dataset), n)
    radii = []
    for place in (torch.device("cpu"), device):
        acert_zoo.certify(loaded, images[:32], labels[:32], device=place)
        began = time.perf_counter()
        radii.append(acert_zoo.certify(loaded, images, labels, device=place).radius)
        yield f"{source}, {n:,} images on {place}: images a second", n / (time.perf_counter() - began), ""
    cpu, there = radii
    both = (cpu > 0) & (there > 0)
    yield "radii proved on one of both alone", int(((cpu > 0) != (there > 0)).sum()), ""
    yield "largest relative difference of radii", float(((there - cpu).abs() / cpu)[both].max()), ""
    proofs = PlacedProofs(trace(loaded).detach(), "real-sound", device)
    x, y, eps = images[:128], labels[:128], torch.full((len(images[:128]),), 1 / 255, dtype=torch.float64)
    margins = []
    for prover in (proofs.rigorous, proofs.of(x)[0]):
        margins.append(prover.margins(x, y, eps))
        began = time.perf_counter()
        prover.margins(x, y, eps)
        spent = time.perf_counter() - began
        yield f"float64 proofs on {prover.device}, ms an image", 1000 * spent / len(x), ""
    one, other = margins
    yield "largest relative difference of their margins", float(((one - other).abs() / one.abs()).max()), ""


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--device", default="cuda", show_default=True)
@click.option("--recipe", default="cifar10_paper", show_default=True)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Overrides a recipe value.")
@click.option("--steps", default=100, show_default=True)
@click.option("--peak", default=989e12, show_default=True, help="Operations a second: an H100's dense bfloat16.")
@click.option("--model", default="cifar10_kappa025", show_default=True)
@click.option("--images", default=10_000, show_default=True)
@click.option("--json", "path", help='Write the results to this file ("-": only print them as JSON).')
def main(
    parts: tuple[str, ...],
    device: str,
    recipe: str,
    changes: tuple[str, ...],
    steps: int,
    peak: float,
    model: str,
    images: int,
    path: str | None,
) -> None:
    """Measures a GPU."""
    place = search_device(device)
    rows: list[tuple[str, Any, str]] = []
    for part in parts or PARTS:
        if part == "probe":
            rows += probe(place)
        elif part == "step":
            rows += step(recipe, changes, place, steps, peak)
        else:
            rows += certify(model, images, place)
    _measure.report(f"GPU ({place})", rows, path)


if __name__ == "__main__":
    main()
