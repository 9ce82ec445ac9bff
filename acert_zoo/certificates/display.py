"""Columns of results as a pandas DataFrame, and certified accuracy as a figure; both packages are optional."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from acert_zoo.errors import MissingDependencyError


def data_frame(columns: Mapping[str, Any]) -> Any:
    """A DataFrame of these columns.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError("to_pandas needs pandas: pip install pandas") from error
    return pandas.DataFrame(columns)


def plot_certified_accuracy(radius: np.ndarray, ax: Any = None, eps_max: float | None = None, **style: Any) -> Any:
    """Draws the share of images (percent) with at least each radius as a step curve; returns the axes.

    Args:
        radius: [N] in pixel units, 0 where nothing was proved.
        ax: axes to draw into; new ones by default.
        eps_max: where the axis ends, by default at the largest radius of any curve in these axes.
        style: of the line (`color`, `label`, ...).

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingDependencyError("plot needs matplotlib: pip install matplotlib") from error
    if ax is None:
        _, ax = pyplot.subplots()
    radii = np.sort(radius[radius > 0])
    top = eps_max if eps_max is not None else float(radii[-1]) if len(radii) else 1.0
    if eps_max is None and ax.lines:
        top = max(top, ax.get_xlim()[1])  # the curve of another result that is in these axes stays whole
    # the share stays up to and including each radius: a step ends there
    eps = np.concatenate([[0.0], radii])
    certified = 100 * np.concatenate([len(radii) - np.arange(len(radii)), [0]]) / max(1, len(radius))
    ax.step(eps, certified, where="post", **style)
    ax.set_xlim(0, top)
    if len(ax.lines) > 1 and ax.get_legend_handles_labels()[1]:
        ax.legend()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("eps (pixel units)")
    ax.set_ylabel(f"certified accuracy, % of {len(radius):,} images")
    return ax
