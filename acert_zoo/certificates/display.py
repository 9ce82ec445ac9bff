"""How results show themselves: a table in notebooks, a figure, a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from acert_zoo.errors import MissingDependencyError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.zoo.display import html_table

if TYPE_CHECKING:
    from acert_zoo.certificates.certificate import Eps
    from acert_zoo.certificates.results import Certificates


def certificates_html(result: Certificates) -> str:
    """Model, number of images, accuracy and radii as a small table."""
    rows = [
        ("images", f"{len(result):,}"),
        ("certified", "the labels" if result.certifies == "label" else "predictions"),
    ]
    if len(result):
        if result.certifies == "label":
            rows.append(("natural accuracy", f"{int(result.correct.sum()):,} of {len(result):,}"))
        rows.append(("with a radius", f"{int((result.radius > 0).sum()):,}"))
        rows.append(("mean radius", f"{np.floor(result.acr * 1e6) / 1e6:.6f} of pixel units"))
        rows.append(("proved by", f"{', '.join(sorted(set(result.method)))}; {result.rounding}"))
    return html_table(f"Certificates of {result.model or 'a network of your own'}", rows)


def certificates_frame(result: Certificates) -> Any:
    """One row an image: id, label, prediction, correct, radius, margin, method, rounding, seconds, route.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingDependencyError("to_pandas needs pandas: pip install pandas") from error
    columns = {
        "id": result.ids,
        "label": result.label.numpy(),
        "prediction": result.prediction.numpy(),
        "correct": result.correct.numpy(),
        "radius": result.radius.numpy(),
        "margin": result.margin.numpy(),
        "method": result.method,
        "rounding": result.roundings,
        "seconds": result.seconds.numpy(),
    }
    if result.route is not None:
        columns["route"] = result.route
    return pandas.DataFrame(columns)


def plot_certificates(result: Certificates, ax: Any = None, eps_max: Eps | None = None, **style: Any) -> Any:
    """Certified accuracy (percent) over eps (pixel units) as a step curve; see `Certificates.plot`."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingDependencyError("plot needs matplotlib: pip install matplotlib") from error
    if ax is None:
        _, ax = pyplot.subplots()
    n = max(1, len(result))
    radii = np.sort(result.radius.numpy()[result.radius.numpy() > 0])
    top = float(parse_eps(eps_max)) if eps_max is not None else float(radii[-1]) if len(radii) else 1.0
    eps = np.concatenate([[0.0], radii])
    certified = 100 * np.concatenate([len(radii) - np.arange(len(radii)), [0]]) / n
    # the share stays up to and including each radius: a step ends there
    if eps_max is None and ax.lines:
        top = max(top, ax.get_xlim()[1])  # the curve of another result that is in these axes stays whole
    ax.step(eps, certified, where="post", **{"label": result.model, **style})
    ax.set_xlim(0, top)
    if len(ax.lines) > 1 and ax.get_legend_handles_labels()[1]:
        ax.legend()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("eps (pixel units)")
    ax.set_ylabel(f"certified accuracy, % of {len(result):,} images")
    return ax
