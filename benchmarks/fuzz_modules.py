"""Random torch modules against their certificates: python benchmarks/fuzz_modules.py [--modules 10000] [--seed 0]

For each module of `random_modules.py`: certify three images, ask `predict_certified`, export to ONNX; then attack the
*module* inside every certified box (corners, points, gradient descent) and run the exported file against it. A module
may be refused with one of the package's own errors. A certificate that the attack refutes, another class at the image
itself, an export that differs, or any other exception is a fault; the exit status is 1 if there is one.

Finished modules are kept in a file (one JSON line each): the same command goes on where it stopped. A line holds the
module's seed, so that a fault can be built again with `random_module(seed)`.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo.attacks.exact_box import attack_box
from acert_zoo.attacks.pgd import descend, margin_objective, random_corners, random_points
from acert_zoo.bounds.certified_prediction import predict_certified
from acert_zoo.errors import AcertZooError
from acert_zoo.network.onnx.files import export_onnx
from benchmarks.random_modules import random_module

SHARE = 0.999  # of each certified radius
POINTS = 24  # corners and points an image
STEPS = 5
NOISE = 1e-5  # of the logits: what float32 rounding may take from a margin that is proved in real arithmetic


@dataclass(frozen=True)
class Outcome:
    """What became of one module: `certified` images have a radius above 0; `refused` is the error's type and text."""

    seed: int
    note: str
    certified: int
    refused: str
    faults: tuple[str, ...]
    seconds: float


def check(seed: int, *, onnx: bool = True) -> Outcome:
    """Everything that is asked about the module of this seed."""
    started = time.perf_counter()
    module, shape, note = random_module(seed)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(3, *shape, generator=generator)
    images[2] = (images[2] > 0.5).float()
    certified, refused, faults = 0, "", []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = acert_zoo.certify(module, images)
            certified = int((result.radius > 0).sum())
            faults += refute(module, images, result.prediction, result.radius, "certify")
            eps = float(result.radius.median()) or 1e-3
            answer = predict_certified(module, images, eps)
            faults += refute(module, images, answer.label, answer.radius, "predict_certified")
            if onnx:
                faults += compare_export(module, images, shape)
        except AcertZooError as error:
            refused = f"{type(error).__name__}: {error}"[:200]
        except Exception as error:  # a fault is reported, not raised
            faults.append(f"{type(error).__name__}: {str(error)[:200]}")
    return Outcome(seed, note, certified, refused, tuple(faults), round(time.perf_counter() - started, 2))


def refute(module: nn.Module, images: Tensor, labels: Tensor, radius: Tensor, what: str) -> list[str]:
    """The certificates that the module's own answers contradict, beyond rounding."""
    inside = (radius > 0).nonzero().flatten()
    if not len(inside):
        return []
    x, y, eps = images[inside], labels[inside], radius[inside] * SHARE
    objective = margin_objective(lambda points: module(points.clone()))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    worst = torch.full((len(x),), math.inf, dtype=torch.float64)
    with torch.no_grad():
        noise = NOISE * module(x.clone()).abs().amax(1).clamp(min=1.0).double()
        for i in range(len(x)):  # alone, as they may be asked about
            worst[i] = objective(x[i : i + 1], y[i : i + 1])[0]
        box = attack_box(x, eps)
        for turn in range(POINTS):
            points = (random_corners, random_points)[turn % 2](box, generator)
            worst = torch.minimum(worst, objective(points, y))
    try:
        for points in descend(objective, random_points(box, generator), y, box, eps, STEPS):
            with torch.no_grad():
                worst = torch.minimum(worst, objective(points, y))
    except RuntimeError:  # no gradient (detach, operations in place): the random points stand
        pass
    bad = (worst < -noise).nonzero().flatten().tolist()
    return [f"{what}: image {int(inside[i])}, radius {float(radius[inside[i]]):g}, margin {worst[i]:g}" for i in bad]


def compare_export(module: nn.Module, images: Tensor, shape: tuple[int, ...]) -> list[str]:
    """Differences of logits between the module and the ONNX file written from it."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        export_onnx(module, path, shape)
        (found,) = onnxruntime.InferenceSession(path).run(None, {"pixels": images.numpy()})
    with torch.no_grad():
        expected = module(images.clone())
    margins = [logits.double() - logits[:, :1].double() for logits in (torch.from_numpy(found), expected)]
    difference = (margins[0] - margins[1]).abs().max().item()
    limit = 10 * NOISE * max(1.0, expected.abs().max().item())
    return [] if difference <= limit else [f"export_onnx: the file differs by {difference:g}"]


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--modules", default=10000, show_default=True)
@click.option("--seed", default=0, show_default=True, help="of the first module")
@click.option("--out", default="runs/fuzz_modules.jsonl", show_default=True, type=click.Path(path_type=Path))
@click.option("--minutes", default=math.inf, help="stop after so many")
def main(modules: int, seed: int, out: Path, minutes: float) -> None:
    torch.set_num_threads(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    done: dict[int, Any] = {}
    if out.exists():
        done = {line["seed"]: line for line in map(json.loads, out.read_text().splitlines())}
    deadline = time.monotonic() + 60 * minutes
    with out.open("a") as file:
        for number in range(seed, seed + modules):
            if number in done or time.monotonic() > deadline:
                continue
            done[number] = asdict(check(number))
            file.write(json.dumps(done[number]) + "\n")
            file.flush()
    found = [line for number, line in done.items() if seed <= number < seed + modules]
    faults = [line for line in found if line["faults"]]
    refused = Counter(line["refused"].split(":")[0] for line in found if line["refused"])
    radii = sum(line["certified"] for line in found)
    print(f"{len(found)} modules: {radii} radii of {len(found) - sum(refused.values())}; refused: {dict(refused)}")
    for line in faults:
        print(f"FAULT, seed {line['seed']} ({line['note']}): {line['faults']}")
    print(f"{len(faults)} modules with faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
