"""The trade-off figures: accuracy against ACR beside the paper's curves, and against certified accuracy at one eps
beside what others published there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from acert_zoo.data.registration import dataset_info
from training.report.figure_style import (
    MARKERS,
    METHODS,
    Point,
    Theme,
    along_the_curve,
    counted,
    heading,
    in_order,
    label_text,
    mix,
    set_limits,
)
from training.report.label_placement import Labels, Segment
from training.report.paper_reference import PAPER
from training.report.published_fronts import fronts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FRONT_STYLES = {
    "MTL-IBP": ("p", "-"),
    "SABR": ("v", "-"),
    "CROWN-IBP": ("^", (0, (4, 2))),
    "CROWN-IBP (loss fusion)": ("^", (0, (4, 2))),
    "IBP": ("s", (0, (4, 2))),
}


def draw_tradeoff(figure: Figure, axes: Axes, points: Sequence[Point], style: Theme, mark: str | None) -> None:
    """Natural accuracy against ACR in percent of eps_max, beside the paper's published curves."""
    dataset, eps_max = points[0].dataset, points[0].eps_max
    paper = PAPER.get(dataset)
    grey = f". Grey: the paper, {paper.network}" if paper else ""
    subtitle = f"{dataset_info(dataset).display_name}, {counted(points)}{grey}"
    heading(figure, "Accuracy against certified robustness", subtitle, style)
    if paper:
        for label, curve, marker, line in (
            ("ACERT, paper", paper.acert, "o", "-"),
            ("IBP, paper", paper.ibp, "s", (0, (4, 2))),
            ("SABR, paper", (paper.sabr,), "v", ""),
            ("standard training, paper", (paper.standard,) if paper.standard else (), "X", ""),
        ):
            if curve:
                _grey(axes, curve, marker, line, label, style)
    _own(figure, axes, points, style, mark, lambda p: p.acr_percent)
    axes.set_xlabel(f"average certified radius (ACR), % of {eps_max}", labelpad=8)
    _legend(figure, axes, style)


def draw_rivals(figure: Figure, axes: Axes, points: Sequence[Point], style: Theme, eps: str) -> None:
    """Natural accuracy against certified accuracy at `eps`, beside published fronts; each with its verifier and n."""
    dataset = points[0].dataset
    front = next(front for front in fronts_of(dataset) if front.eps == eps)
    shown = [p for p in points if eps in dict(p.certified)]
    heading(
        figure,
        f"Accuracy against certified accuracy at {eps}",
        f"{dataset_info(dataset).display_name}. Colours: this zoo, {counted(shown)}.\n"
        f"Grey: arXiv 2606.02134, CNN-7, {front.n:,} test images, {front.verifier}, tuned on {front.tuned_on}",
        style,
    )
    for method, pairs in front.points.items():
        marker, line = _FRONT_STYLES.get(method, ("P", "-"))
        _grey(axes, pairs, marker, line, f"{method}, published", style)
    _own(figure, axes, shown, style, None, lambda p: dict(p.certified)[eps])
    axes.set_xlabel(f"certified accuracy at {eps}, %", labelpad=8)
    _legend(figure, axes, style)


def _grey(
    axes: Axes, curve: Sequence[tuple[float, float]], marker: str, line: object, label: str, style: Theme
) -> None:
    axes.plot(
        *zip(*curve, strict=True),
        color=style.paper,
        ls=line or "",  # type: ignore[arg-type]
        lw=1.4,
        marker=marker,
        ms=3.6 if line else 6.5,
        zorder=2,
        clip_on=False,
        label=label,
    )


def _own(
    figure: Figure,
    axes: Axes,
    points: Sequence[Point],
    style: Theme,
    mark: str | None,
    robustness: Callable[[Point], float],
) -> None:
    """The zoo's points: one colour a method, neighbours in kappa joined, kappa beside each point."""
    segments: list[Segment] = []
    for method in in_order(points):
        strong = style.colours.get(method, style.text)
        colour = mix(strong, style.background, 0.5 if mark else 0.0)
        marker, line = MARKERS.get(method, "P"), "" if method == "standard" else "--" if method == "ibp" else "-"
        mine = [p for p in points if p.method == method]
        for trained_eps in sorted({p.trained_eps or "" for p in mine}):
            curve = sorted((p for p in mine if (p.trained_eps or "") == trained_eps), key=along_the_curve)
            x, y = [robustness(p) for p in curve], [p.accuracy for p in curve]
            axes.plot(x, y, color=colour, lw=2.2, zorder=4, ls=line)
            axes.plot(
                x, y, color=colour, ls="", marker=marker, ms=9 if marker == "X" else 7.5,
                mec=style.background, mew=0.8 if marker == "X" else 1.2, zorder=5, clip_on=False,
            )  # fmt: skip
            if line:
                segments += list(zip(zip(x, y, strict=True), zip(x[1:], y[1:], strict=True), strict=False))
        label = f"{METHODS.get(method, method)}, this zoo"
        axes.plot([], [], color=strong, lw=2.2, marker=marker, ms=7, ls=line, label=label)
    set_limits(axes, axes.lines)
    axes.set_ylabel("natural accuracy, %", labelpad=8)
    labels = Labels(axes, [(robustness(p), p.accuracy) for p in points], segments)
    for p in sorted(points, key=lambda p: p.name != mark):  # the marked one has the first choice
        strong = style.colours.get(p.method, style.text)
        at, marker = (robustness(p), p.accuracy), MARKERS.get(p.method, "P")
        if p.name == mark:
            axes.plot(*at, color=strong, ls="", marker=marker, ms=8.5, zorder=7)
            axes.plot(*at, ls="", marker="o", ms=17, mfc="none", mec=strong, mew=2, zorder=7)
        labels.add(
            p.name if p.name == mark else label_text(p),
            at,
            below=p.method == "ibp",
            fontsize=10.5 if p.name == mark else 9,
            fontweight="bold" if p.name == mark else "normal",
            color=strong if p.name == mark else mix(strong, style.background, 0.25 if mark else 0.0),
            zorder=8,
        )


def _legend(figure: Figure, axes: Axes, style: Theme) -> None:
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: not labels[i].endswith("this zoo"))  # this zoo first
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="lower left",
        bbox_to_anchor=(0.02, 0.005),
        ncols=4,
        frameon=False,
        fontsize=9,
        labelcolor=style.text,
        handlelength=2.4,
        columnspacing=1.8,
    )
