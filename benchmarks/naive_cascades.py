"""Naive against sound certificates of cascades: python benchmarks/naive_cascades.py [--model cifar10_cascade].

"On the Perils of Cascading Robust Classifiers" (Mangal et al., arXiv 2206.00278) shows that a cascade must not hand on
the radius of the member that answered: inside it another member may answer, and its attack CasA looks for images where
one does. Here `acert_zoo.attack` does so (it descends each gate's margin, to open and to close it, then each member's
margin), at 99.9 % of two radii of each image: the naive one, which is the answering member's own, and the one that
`acert_zoo.certify` gives for the cascade. A naive radius that falls is a false certificate; ours must never fall.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import _measure
import click
import torch

import acert_zoo
from acert_zoo._files import write_atomically


def naive_radii(cascade: acert_zoo.Cascade, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[N] float64, the certified radius of the member that answers each image; [N] int64, that member."""
    route = cascade.route(images)
    radii = torch.zeros(len(images), dtype=torch.float64)
    for k, member in enumerate(cascade.members):
        mine = route == k
        if bool(mine.any()):
            radii[mine] = acert_zoo.certify(member, images[mine]).radius
    return radii, route


def refuted(
    cascade: acert_zoo.Cascade, images: torch.Tensor, radii: torch.Tensor, steps: int, restarts: int
) -> torch.Tensor:
    """[N] bool: an image within 99.9 % of the radius gets another answer."""
    result = torch.zeros(len(images), dtype=torch.bool)
    claimed = radii > 0
    if bool(claimed.any()):
        labels = cascade(images[claimed]).argmax(1)
        found = acert_zoo.attack(
            cascade, images[claimed], labels, radii[claimed] * 0.999, steps=steps, restarts=restarts
        )
        result[claimed] = found.success
    return result


@click.command()
@click.option("--model", default="cifar10_cascade", show_default=True)
@click.option("--images", default=100, show_default=True, help="Of the test set ($ACERT_ZOO_DATA), else bundled ones.")
@click.option("--steps", default=40, show_default=True)
@click.option("--restarts", default=4, show_default=True)
@click.option("--json", "path", type=Path, help="Write the numbers to this file.")
def main(model: str, images: int, steps: int, restarts: int, path: Path | None) -> None:
    """Counts naive and sound cascade certificates that an attack refutes."""
    cascade = acert_zoo.load_model(model)
    if not isinstance(cascade, acert_zoo.Cascade):
        raise click.UsageError(f"{model} is no cascade")
    x, _, where = _measure.test_images(cascade.info.dataset, images)
    naive, route = naive_radii(cascade, x)
    sound = acert_zoo.certify(cascade, x).radius
    fallen = {
        "naive": refuted(cascade, x, naive, steps, restarts),
        "sound": refuted(cascade, x, sound, steps, restarts),
    }
    result: dict[str, Any] = {
        "model": model,
        "images": len(x),
        "of": where,
        "answered_by": torch.bincount(route).tolist(),
    }
    for name, radii in (("naive", naive), ("sound", sound)):
        result[name] = {"certified": int((radii > 0).sum()), "refuted": int(fallen[name].sum())}
        click.echo(f"{name}: {result[name]['certified']} of {len(x)} certified, {result[name]['refuted']} refuted")
    if path:
        write_atomically(path, json.dumps(result, indent=1).encode())
    if result["sound"]["refuted"]:
        raise click.ClickException("a sound certificate was refuted")


if __name__ == "__main__":
    main()
