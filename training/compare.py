"""ACR at equal accuracy: python training/compare.py [--dataset cifar10] [--accuracy 60 --accuracy 65 ...].

From the registry's test-set figures: one column for each method of the zoo, one for each curve of the ACERT paper.
Between two models of a method their ACR is interpolated linearly in the accuracy; outside its models a method has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from acert_zoo.errors import AcertZooError, UnknownNameError
from training.report.figure_style import METHODS
from training.report.paper_reference import PAPER
from training.report.tradeoff import registry_points
from training.results.zoo_folder import ZooFolder

Curve = Sequence[tuple[float, float]]  # (accuracy %, ACR %)


def acr_at(curve: Curve, accuracy: float) -> float | None:
    """ACR (%) of the polygon through `curve` at `accuracy` (%); None outside its range.

    Points that another point beats in both figures do not count.
    """
    front = sorted(p for p in curve if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in curve))
    if not front or not front[0][0] <= accuracy <= front[-1][0]:
        return None
    x, y = zip(*front, strict=True)
    return float(np.interp(accuracy, x, y))


def curves(dataset: str, zoo: ZooFolder) -> dict[str, Curve]:
    """The zoo's methods and the paper's curves of one data set. UnknownNameError where the zoo has no such data set."""
    points = registry_points(zoo)
    if dataset not in points:
        raise UnknownNameError.near("data set with models", dataset, points)
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points[dataset]:
        found.setdefault(METHODS.get(point.method, point.method), []).append((point.accuracy, point.acr_percent))
    result: dict[str, Curve] = dict(sorted(found.items()))
    if paper := PAPER.get(dataset):
        result["paper: ACERT"] = [(accuracy, acr) for acr, accuracy in paper.acert]
        result["paper: IBP"] = [(accuracy, acr) for acr, accuracy in paper.ibp]
    return result


def table(found: Mapping[str, Curve], accuracies: Sequence[float]) -> Table:
    """One row for each accuracy; the last column is the zoo's ACERT over its IBP where it has both."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("accuracy %", justify="right")
    for name in found:
        shown.add_column(name, justify="right")
    ratio = {"ACERT", "IBP"} <= found.keys()
    if ratio:
        shown.add_column("ACERT / IBP", justify="right")
    for accuracy in accuracies:
        values = {name: acr_at(curve, accuracy) for name, curve in found.items()}
        cells = ["-" if value is None else f"{value:.2f}" for value in values.values()]
        if ratio:
            ours, rival = values["ACERT"], values["IBP"]
            cells.append("-" if ours is None or rival is None or rival == 0 else f"{ours / rival:.2f}")
        shown.add_row(f"{accuracy:g}", *cells)
    return shown


@click.command()
@click.option("--dataset", default="cifar10", show_default=True)
@click.option("--accuracy", type=click.FloatRange(0, 100), multiple=True, help="Accuracy in percent; may be repeated.")
@click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout whose registry is read."
)
def main(dataset: str, accuracy: tuple[float, ...], root: Path | None) -> None:
    """Print the ACR (% of eps_max) of each method at equal accuracy."""
    try:
        found = curves(dataset, ZooFolder(root) if root else ZooFolder())
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    if not accuracy:
        lowest = min(a for curve in found.values() for a, _ in curve)
        highest = max(a for curve in found.values() for a, _ in curve)
        accuracy = tuple(np.arange(np.ceil(lowest / 2.5) * 2.5, highest + 1e-9, 2.5).tolist())
    Console(width=max(100, Console().width)).print(table(found, accuracy))


if __name__ == "__main__":
    main()
