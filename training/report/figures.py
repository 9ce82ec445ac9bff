"""Draws the zoo's figures with matplotlib: accuracy against ACR, against certified accuracy, and that against eps.

The same points give the same SVG bytes (no date, fixed id salt). Each file carries a digest of what it shows, so that
a stale figure is found without drawing it again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from training.report.certified_figure import draw_certified
from training.report.figure_style import THEMES, Point
from training.report.paper_reference import PAPER
from training.report.published_fronts import FRONTS, front_eps
from training.report.tradeoff_figure import draw_rivals, draw_tradeoff

DRAWING_VERSION = 3  # raise it when the look changes, so that every figure counts as stale


def digest(kind: str, points: Sequence[Point], theme: str, mark: str | None) -> str:
    """Names what a figure shows; it is written into the file."""
    published = [asdict(curves) for name, curves in sorted(PAPER.items())] + [asdict(front) for front in FRONTS]
    shown = [DRAWING_VERSION, kind, [asdict(p) for p in points], theme, mark, published]
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def draw(kind: str, points: Sequence[Point], theme: str, mark: str | None = None, form: str = "svg") -> bytes:
    """The figure `kind` of one data set's models, as SVG or PNG bytes.

    Args:
        kind: "tradeoff", "certified", or "rivals-EPS" with the EPS of published fronts.
        theme: "light" or "dark".
        mark: name of the model to stand out.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = THEMES[theme]
    settings: dict[str, Any] = {
        "svg.hashsalt": "acert-zoo",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 10.5,
        "text.color": style.text,
        "axes.edgecolor": style.grid,
        "axes.labelcolor": style.muted,
        "xtick.color": style.muted,
        "ytick.color": style.muted,
        "path.simplify": False,
    }
    defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)  # not the user's own
    with matplotlib.rc_context(defaults | settings):
        figure = Figure(figsize=(8.0, 5.2), facecolor=style.background)
        FigureCanvasAgg(figure)
        bottom = 0.12 if kind == "certified" else 0.235
        axes = figure.add_axes((0.095, bottom, 0.875, 0.855 - bottom))
        axes.set_facecolor(style.background)
        axes.grid(color=style.grid, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=6)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(side == "bottom")
        if kind == "certified":
            draw_certified(figure, axes, points, style, mark)
        elif kind == "tradeoff":
            draw_tradeoff(figure, axes, points, style, mark)
        else:
            draw_rivals(figure, axes, points, style, front_eps(kind))
        buffer = io.BytesIO()
        note = digest(kind, points, theme, mark)
        if form == "svg":
            metadata: dict[str, Any] = {"Date": None, "Creator": None, "Description": note}
        else:
            metadata = {"Software": None, "Description": note}
        figure.savefig(buffer, format=form, dpi=180, facecolor=style.background, metadata=metadata)
    return buffer.getvalue()
