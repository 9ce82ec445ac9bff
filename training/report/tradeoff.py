"""The zoo's trade-off figures: which points they show, which files they are, and whether those are current.

Points come from the registry, or from a run's `evaluation.json`. training/report/figures.py draws them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import down, parse_eps
from acert_zoo.zoo import registry
from acert_zoo.zoo.model_info import ModelInfo
from training.report.figure_style import THEMES, Point
from training.report.figures import digest, draw
from training.report.published_fronts import front_kind, fronts_of
from training.results.zoo_folder import ZooFolder, write_atomic

FORMS = ("svg", "png")


def registry_points(zoo: ZooFolder) -> dict[str, list[Point]]:
    """The newest version of every registered model that belongs in a figure, by data set, sorted by name.

    ACR is in % of the largest eps_max of the data set; a model of a smaller one whose ACR in that unit is not known is
    left out.
    """
    newest = {m.name: m for m in registry.read_registry(zoo.registry)}  # sorted by version: the last one wins
    infos = sorted(newest.values(), key=lambda m: m.name)
    largest = {str(m.dataset): m.eps_max for m in registry.at_largest_radius(infos)}
    points: dict[str, list[Point]] = {}
    for info in infos:
        accuracy, eps_max = info.metric("accuracy"), largest.get(str(info.dataset))
        acr = acr_percent_of(info, eps_max) if eps_max else None
        if accuracy is None or acr is None or info.dataset is None or eps_max is None:
            continue
        path = zoo.evaluation(info.name, info.version)
        curve = json.loads(path.read_text(encoding="utf-8")).get("curve", {}) if path.is_file() else {}
        points.setdefault(info.dataset, []).append(
            Point(
                name=info.name,
                dataset=info.dataset,
                method="cascade" if info.kind == "cascade" else str(info.method),
                kappa=info.kappa,
                eps_max=eps_max,
                n=accuracy.n,
                accuracy=accuracy.value,
                acr_percent=acr,
                curve_eps=tuple(curve.get("eps", ())),
                curve_certified=tuple(curve.get("certified_accuracy", ())),
                trained_eps=info.eps_max if info.eps_max != eps_max else None,
                certified=tuple((str(m.eps), m.value) for m in info.metrics if m.metric == "certified_accuracy"),
            )
        )
    return points


def acr_percent_of(info: ModelInfo, eps_max: str) -> float | None:
    """The model's ACR in percent of `eps_max`, which may be larger than its own; None where its record does not tell.

    Where no image at all is certified at some eps <= eps_max, no radius is cut off there, and the mean of all radii is
    the ACR.
    """
    capped, mean = info.metric("acr_percent"), info.metric("acr")
    if capped is not None and capped.eps == eps_max:
        return capped.value
    nothing = [m for m in info.metrics if m.metric == "certified_accuracy" and m.value == 0 and m.eps is not None]
    if mean is None or not any(parse_eps(str(m.eps)) <= parse_eps(eps_max) for m in nothing):
        return None
    return float(down(100 * Fraction(repr(mean.value)) / parse_eps(eps_max), 6))


def kinds_of(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """The figures of one data set's points, and the points in each."""
    kinds = [("tradeoff", list(points)), ("certified", [p for p in points if p.curve_eps])]
    for front in fronts_of(points[0].dataset):
        kinds.append((front_kind(front), [p for p in points if front.eps in dict(p.certified)]))
    return [(kind, shown) for kind, shown in kinds if shown]


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
        certified=tuple((m["eps"], m["value"]) for m in result["metrics"] if m["metric"] == "certified_accuracy"),
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
    """All figures of every data set in the registry, in docs/figures."""
    stale = []
    for dataset, points in registry_points(zoo).items():
        for kind, shown in kinds_of(points):
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
