"""The zoo's trade-off figures: python training/tradeoff.py [--dataset cifar10] [RUN ...].

From the registry, or with RUN folders named, from their `evaluation.json` (written by evaluate.py --run): accuracy
against ACR beside the paper's published curves, and certified accuracy against eps, as SVG and PNG, light and dark.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.zoo import registry
from training.figures import THEMES, Point, digest, draw
from training.zoo_folder import ZooFolder, write_atomic

KINDS = ("tradeoff", "certified")
FORMS = ("svg", "png")


def registry_points(zoo: ZooFolder) -> dict[str, list[Point]]:
    """The newest version of every registered model that belongs in a figure, by data set, sorted by name.

    A model trained for a smaller eps_max than others of its data set does not: its ACR is in % of another radius.
    """
    newest = {m.name: m for m in registry.read_registry(zoo.registry)}  # sorted by version: the last one wins
    points: dict[str, list[Point]] = {}
    for info in registry.at_largest_radius(sorted(newest.values(), key=lambda m: m.name)):
        accuracy, acr = info.metric("accuracy"), info.metric("acr_percent")
        if accuracy is None or acr is None or info.dataset is None or info.eps_max is None:
            continue
        if info.kind == "model" and info.method == "standard":
            continue  # nothing is certified: it is a cascade's last stage
        path = zoo.evaluation(info.name, info.version)
        curve = json.loads(path.read_text(encoding="utf-8")).get("curve", {}) if path.is_file() else {}
        points.setdefault(info.dataset, []).append(
            Point(
                name=info.name,
                dataset=info.dataset,
                method="cascade" if info.kind == "cascade" else str(info.method),
                kappa=info.kappa,
                eps_max=info.eps_max,
                n=accuracy.n,
                accuracy=accuracy.value,
                acr_percent=acr.value,
                curve_eps=tuple(curve.get("eps", ())),
                curve_certified=tuple(curve.get("certified_accuracy", ())),
            )
        )
    return points


def run_point(run: Path) -> Point:
    """The point of an evaluated run that is not in the zoo."""
    try:
        recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
        result: dict[str, Any] = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"{error.filename} is missing: evaluate the run first (training/evaluate.py --run {run})"
        ) from None
    values = {m["metric"]: m for m in result["metrics"]}
    return Point(
        name=run.resolve().name,
        dataset=result["dataset"],
        method=recipe["objective"],
        kappa=recipe["kappa"],
        eps_max=values["acr_percent"]["eps"],
        n=result["n"],
        accuracy=values["accuracy"]["value"],
        acr_percent=values["acr_percent"]["value"],
        curve_eps=tuple(result["curve"]["eps"]),
        curve_certified=tuple(result["curve"]["certified_accuracy"]),
    )


def files(
    folder: Path, stem: str, kind: str, points: Sequence[Point], mark: str | None = None, forms: Sequence[str] = FORMS
) -> Iterator[tuple[Path, str, str]]:
    """(path, theme, form) of every file of one figure."""
    for theme in THEMES:
        for form in forms:
            yield folder / f"{stem}-{theme}.{form}", theme, form


def is_current(path: Path, kind: str, points: Sequence[Point], theme: str, mark: str | None) -> bool:
    """Whether the file shows just these points (by the digest written into it)."""
    return path.is_file() and digest(kind, points, theme, mark).encode() in path.read_bytes()


def render(
    folder: Path,
    stem: str,
    kind: str,
    points: Sequence[Point],
    *,
    mark: str | None = None,
    forms: Sequence[str] = FORMS,
    check: bool = False,
) -> list[Path]:
    """Draws what is not current; returns those files. With `check`, only names them."""
    stale = []
    for path, theme, form in files(folder, stem, kind, points, mark, forms):
        if is_current(path, kind, points, theme, mark):
            continue
        stale.append(path)
        if not check:
            write_atomic(path, draw(kind, points, theme, mark, form))
    return stale


def render_zoo(zoo: ZooFolder, *, check: bool = False) -> list[Path]:
    """Both figures of every data set in the registry, in docs/figures."""
    stale = []
    for dataset, points in registry_points(zoo).items():
        for kind in KINDS:
            shown = points if kind == "tradeoff" else [p for p in points if p.curve_eps]
            if shown:
                stale += render(zoo.figures, f"{kind}-{dataset}", kind, shown, check=check)
    return stale


def picture(prefix: str, alt: str, form: str = "svg") -> str:
    """Markdown for a figure that follows the reader's light or dark scheme."""
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{prefix}-dark.{form}">\n'
        f'  <img alt="{alt}" src="{prefix}-light.{form}" width="720">\n'
        "</picture>"
    )


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
            for kind in KINDS:
                shown = points if kind == "tradeoff" else [p for p in points if p.curve_eps]
                for path in render(out or zoo.figures, f"{kind}-{dataset}", kind, shown) if shown else []:
                    click.echo(path)
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
