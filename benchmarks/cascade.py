"""What a cascade costs beside its members: python benchmarks/cascade.py [--cascade NAME]

Milliseconds per image of a forward pass, batch 1 and 128, median of repetitions; members run only on the images that
reach them, so a cascade's cost is that of its first member and gate, and a share of the rest. Without a cascade in the
registry, one of untrained networks of the published sizes is timed (its gate set so that half of the images pass).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo import Cascade
from acert_zoo.network import architectures


def untrained() -> Cascade:
    """The CIFAR-10 recipes' networks with random weights."""
    torch.manual_seed(0)
    common = {"input_shape": [3, 32, 32], "num_classes": 10, "mean": [0.5] * 3, "std": [0.25] * 3}
    first = architectures.build("cnn", convs=[[32, 2], [32, 1], [64, 2], [64, 1]], hidden=256, **common).eval()
    last = architectures.build("resnet", stem=32, blocks=[[64, 2], [128, 2], [128, 1], [256, 2]], **common).eval()
    images, _ = acert_zoo.sample_data("cifar10", n=64)
    radius = acert_zoo.certify(first, images).radius
    return Cascade([first, last], [float(radius.median())]).eval()


def milliseconds(run: Callable[[Tensor], object], images: Tensor, batch: int, repetitions: int) -> float:
    """Median milliseconds per image of `run` on batches of that size, after one warm-up."""
    batches = [b for b in images.split(batch) if len(b) == batch]
    run(batches[0])
    times = []
    for i in range(repetitions):
        started = time.perf_counter()
        run(batches[i % len(batches)])
        times.append((time.perf_counter() - started) * 1000 / batch)
    return statistics.median(times)


@click.command()
@click.option("--cascade", "name", help="A cascade of the zoo (default: cifar10_cascade, or untrained networks).")
@click.option("--threads", type=int, help="CPU threads.")
@click.option("--repetitions", default=30, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(name: str | None, threads: int | None, repetitions: int, as_json: bool) -> None:
    """Time a cascade against its members."""
    if threads:
        torch.set_num_threads(threads)
    if name is None and "cifar10_cascade" in acert_zoo.list_models():
        name = "cifar10_cascade"
    model = acert_zoo.load_model(name) if name else untrained()
    if not isinstance(model, Cascade):
        raise click.UsageError(f"{name} is not a cascade")
    dataset = str(model.info.dataset) if model.info else "cifar10"
    images, _ = acert_zoo.sample_data(dataset)
    images = images.repeat(-(-128 // len(images)), 1, 1, 1)
    shares = (model.route(images).bincount(minlength=len(model.members)) / len(images)).tolist()

    def gate(k: int, member: nn.Module) -> Callable[[Tensor], object]:
        return lambda x: model.gate_open(k, x, member(x).argmax(1))

    runs: list[tuple[str, Callable[[Tensor], object]]] = []
    members: list[Any] = list(model.members)
    for k, member in enumerate(members):
        label = member.info.name if getattr(member, "info", None) else f"member {k}"
        runs.append((label, member))
        if k < len(model.gates):
            runs.append((f"{label} and its gate", gate(k, member)))
    runs.append(("cascade", model))
    rows = []
    with torch.no_grad():
        for label, run in runs:
            rows.append({"model": label} | {f"batch {b}": milliseconds(run, images, b, repetitions) for b in (1, 128)})
    if as_json:
        click.echo(json.dumps({"threads": torch.get_num_threads(), "answered": shares, "rows": rows}, indent=1))
        return
    click.echo(f"{name or 'untrained networks'}, {torch.get_num_threads()} threads, milliseconds per image")
    click.echo(f"{'':<36} {'batch 1':>9} {'batch 128':>10}")
    for row in rows:
        click.echo(f"{row['model']:<36} {row['batch 1']:>9.2f} {row['batch 128']:>10.2f}")
    click.echo(f"answered by each member: {', '.join(f'{100 * s:.0f} %' for s in shares)}")


if __name__ == "__main__":
    main()
