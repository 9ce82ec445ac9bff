"""Draws the zoo's trade-off figures: python training/tradeoff.py [RUN ...].

From the registry, or with RUN folders named, from their `evaluation.json` (written by evaluate.py --run): accuracy
against ACR beside the paper's published curves and against certified accuracy beside published fronts, and certified
accuracy against eps, as SVG and PNG, light and dark.
"""

from __future__ import annotations

from pathlib import Path

import click

from acert_zoo.errors import AcertZooError, InvalidInputError
from training.report.figure_style import Point
from training.report.tradeoff import kinds_of, registry_points, render, run_point
from training.results.zoo_folder import ZooFolder


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder (default: docs/figures).")
@click.option(
    "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout to read and write."
)
def main(runs: tuple[Path, ...], out: Path | None, root: Path | None) -> None:
    """Draw the trade-off figures of the registry, or of the evaluated RUNS."""
    zoo = ZooFolder(root) if root else ZooFolder()
    try:
        groups: dict[str, list[Point]] = {}
        if runs:
            for run in runs:
                point = run_point(run)
                groups.setdefault(point.dataset, []).append(point)
        else:
            groups = registry_points(zoo)
        if not groups:
            raise InvalidInputError("the registry has no evaluated model; name evaluated runs")
        for dataset, points in groups.items():
            for kind, shown in kinds_of(points):
                for path in render(out or zoo.figures, f"{kind}-{dataset}", kind, shown):
                    click.echo(path)
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
