"""Attacks the boxes that only branch and bound has proved: how many points are adversarial (0, if the proofs hold)?

    python benchmarks/decide_attack.py verdicts.jsonl --points 100000

Takes the images of a verdict file (`acert-zoo decide --data ... --out`) that are robust by branch-and-bound, and tries
in each box, in turn: random corners, random points, and the points that PGD passes through. A point counts as
adversarial where the float64 logits name another class; float32 logits sort out those that are far from it.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch

import acert_zoo
from acert_zoo.attacks.exact_box import attack_box
from acert_zoo.attacks.pgd import margin_objective, random_corners, random_points
from acert_zoo.certificates.verdict_file import read_verdicts
from acert_zoo.data.datasets import load_split, to_pixels
from acert_zoo.exact_numbers import parse_eps, round_down
from acert_zoo.network.tracing import trace

BATCH = 250
NEAR = 1e-3  # logit units: where float32 says less, float64 decides


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--points", default=100_000, show_default=True, help="In all.")
def main(file: Path, points: int) -> None:
    """Counts adversarial points in the boxes of FILE that branch and bound proved."""
    verdicts = read_verdicts(file, partial=True)
    header = verdicts.header
    model = acert_zoo.load_model(f"{header.model}.v{header.model_version}")
    network = trace(model).detach()
    exact = network.to(torch.float64)
    arrays, _ = load_split(str(header.dataset), str(header.split))
    chosen = [line for line in verdicts.lines if line.method == "branch-and-bound" and line.status == "robust"]
    generator, objective = torch.Generator().manual_seed(0), margin_objective(model)
    tried = violations = 0
    smallest, started = float("inf"), time.perf_counter()
    for place, line in enumerate(chosen):
        image = to_pixels(arrays[int(line.id) : int(line.id) + 1].copy()).expand(BATCH, -1, -1, -1)
        eps = round_down(parse_eps(header.eps))
        box = attack_box(image, torch.tensor(eps, dtype=torch.float64))
        labels = torch.full((BATCH,), line.label)
        target = points * (place + 1) // len(chosen)
        x, step = image, 0
        while tried < target:
            if step % 20 < 2:
                x = (random_corners if step % 20 else random_points)(box, generator)
            x = x.detach().requires_grad_()
            margin = objective(x, labels)
            (gradient,) = torch.autograd.grad(margin.sum(), x)
            near = (margin < NEAR).nonzero().squeeze(1)
            if len(near):
                violations += int((exact(x.detach()[near].double()).argmax(1) != line.label).sum())
            smallest, tried, step = min(smallest, float(margin.detach().min())), tried + BATCH, step + 1
            x = box.clamp(x.detach() - eps * (0.5 if step % 20 < 8 else 0.1) * gradient.sign())
    seconds = time.perf_counter() - started
    print(f"{len(chosen)} images, {tried:,} points, {violations} violations")
    print(f"smallest margin {smallest:.4g}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
