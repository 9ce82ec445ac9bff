"""Weights between neighbours of a family: python benchmarks/interpolation.py [--family cifar10] [--images 1000].

For every two neighbours of a family and shares 0, 1/4, 1/2, 3/4 and 1: accuracy, ACR in percent of eps_max and
certified accuracy on images of the validation split. Bounds are float32 IBP (rounding not controlled), as in the
validation of a training run; docs/training.md has the curves.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch

import acert_zoo
from acert_zoo._files import write_atomically
from acert_zoo.zoo.interpolation import interpolate
from training.recipes.recipe import load_recipe
from training.run.validation import Validation

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@click.command()
@click.option("--family", default="cifar10", show_default=True, help='What stands before "_kappa" in the names.')
@click.option("--images", default=1000, show_default=True, help="Of the validation split.")
@click.option("--data-root", help="Folder of the data sets (by default $ACERT_ZOO_DATA).")
@click.option("--json", "path", type=Path, help="Write the rows to this file.")
def main(family: str, images: int, data_root: str | None, path: Path | None) -> None:
    """Measures the models between the neighbours of a family."""
    names = [n for n in acert_zoo.list_models(f"{family}_kappa*") if n.startswith(f"{family}_kappa")]
    models: list[Any] = [acert_zoo.load_model(name) for name in names]
    models.sort(key=lambda m: m.info.kappa)
    if len(models) < 2:
        raise click.UsageError(f"{family!r} has {len(models)} models; expected a family of two or more")
    info = models[0].info
    changes = [f"dataset={info.dataset}", f"radius.eps_max={info.eps_max}", f"validation_images={images}"]
    validation = Validation(load_recipe("cifar10", changes), data_root, torch.device("cpu"))
    rows = []
    for a, b in pairwise(models):
        for share in SHARES:
            model = interpolate(a, b, share)
            row = {"from": a.info.name, "to": b.info.name, "share": share, **validation.measure(model)}
            rows.append(row)
            numbers = "  ".join(
                f"{k} {v:.2f}" for k, v in row.items() if isinstance(v, float) and k not in ("share", "acr")
            )
            click.echo(f"{a.info.name} -> {b.info.name}  share {share:.2f}  {numbers}")
    if path:
        write_atomically(path, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main()
