"""Draws docs/figures/method-*: what an adaptive radius is, on a checkpoint and images that come with the package.

    python training/method_figure.py

Left: R(x, eps), the smallest interval bound of a margin, of four images. Each is trained at its own eps*, where its
curve meets 0. Right: eps* of all bundled images of the data set, beside the one radius that plain IBP trains with.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

import acert_zoo
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.data.registration import dataset_info
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from training.method.adaptive_radius import adaptive_radius
from training.report.figure_style import THEMES, Theme

MODEL = "cifar10_kappa025"
FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
SHARES = (0.25, 0.6, 1.3)  # of eps_max: where the eps* of the images in the left part is wanted


def measured(name: str = MODEL) -> tuple[Network, Tensor, Tensor, float]:
    """(network, images, labels, eps_max) of the checkpoint and the bundled images of its data set."""
    model = acert_zoo.load_model(name)
    dataset = str(model.info.dataset)  # type: ignore[union-attr]
    images, labels = acert_zoo.sample_data(dataset)
    return trace(model).detach(), images, labels, dataset_info(dataset).eps_max_value


@torch.no_grad()
def curves(network: Network, images: Tensor, labels: Tensor, eps_max: float) -> tuple[Tensor, Tensor, Tensor]:
    """(eps [E], R [4, E], eps* [4] up to 1.5 eps_max) of a misclassified image and of those nearest to SHARES."""
    margin = robust_margin(network, images, labels, 0.0)
    root = adaptive_radius(network, images, labels, margin, 1.5 * eps_max, evaluations=40, tolerance=1e-4).radius
    wrong = torch.where(margin < 0, -margin, torch.inf)
    chosen = [int((wrong - 0.6).abs().argmin())]
    for share in SHARES:
        distance = torch.where(margin > 0, (root - share * eps_max).abs(), torch.inf)
        chosen.append(int(distance.argmin()))
    eps = torch.linspace(0, 1.45 * eps_max, 80)
    values = torch.stack([robust_margin(network, images[chosen], labels[chosen], e.item()) for e in eps], 1)
    return eps, values, root[chosen]


def draw(style: Theme, form: str) -> bytes:
    """The figure as SVG or PNG bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {
        "svg.hashsalt": "acert-zoo",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "text.color": style.text,
        "axes.labelcolor": style.muted,
        "xtick.color": style.muted,
        "ytick.color": style.muted,
    }
    with matplotlib.rc_context(dict(matplotlib.rcParamsDefault) | settings):  # type: ignore[arg-type]
        figure = Figure(figsize=(9.6, 4.1), facecolor=style.background)
        FigureCanvasAgg(figure)
        left, right = figure.add_axes((0.065, 0.145, 0.5, 0.72)), figure.add_axes((0.655, 0.145, 0.325, 0.72))
        for axes in (left, right):
            axes.set_facecolor(style.background)
            axes.grid(color=style.grid, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(length=0, pad=5)
            for side in axes.spines.values():
                side.set_visible(False)
        network, images, labels, eps_max = measured()
        _margins(left, curves(network, images, labels, eps_max), 255 * eps_max, style)
        margin = robust_margin(network, images, labels, 0.0)
        found = adaptive_radius(network, images, labels, margin, eps_max, evaluations=40, tolerance=1e-4)
        _radii(right, 255 * found.radius, 255 * eps_max, style)
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, dpi=160, facecolor=style.background, metadata=metadata)
    return buffer.getvalue()


def _margins(axes: Any, shown: tuple[Tensor, Tensor, Tensor], eps_max: float, style: Theme) -> None:
    eps, values, roots = shown
    acert, ibp = style.colours["acert"], style.colours["ibp"]
    names = ["wrong: eps* = 0", "fragile", "firmer", "robust at eps_t:\neps* = eps_t"]
    axes.axhline(0, color=style.muted, lw=1.2, zorder=2)
    axes.axvline(eps_max, color=ibp, lw=1.6, ls=(0, (4, 2)), zorder=2)
    for k, (row, root, name) in enumerate(zip(values, (255 * roots).tolist(), names, strict=True)):
        axes.plot((255 * eps).tolist(), row.tolist(), color=acert, lw=2, alpha=0.55 + 0.15 * k, zorder=3)
        at = min(max(root, 0.0), eps_max)
        height = row[int((255 * eps - at).abs().argmin())].item() if at in (0.0, eps_max) else 0.0
        axes.plot(at, height, "o", ms=9, color=acert, mec=style.background, mew=1.3, zorder=6)
        axes.annotate(
            name, (at, height), xytext=(10, 6), textcoords="offset points", fontsize=9, color=style.text, zorder=7
        )
    high = values[:, 0].max().item()
    axes.annotate(
        "IBP trains every image here", (eps_max, 0.97), xycoords=("data", "axes fraction"), xytext=(-6, 0),
        textcoords="offset points", ha="right", va="top", fontsize=9, color=ibp,
    )  # fmt: skip
    axes.set_xlim(-0.3, 255 * eps[-1].item())
    axes.set_ylim(-0.75 * high, 1.12 * high)
    axes.set_title("ACERT trains each image where its own bound meets 0", loc="left", fontsize=11, color=style.text)
    axes.set_xlabel("eps (k/255)")
    axes.set_ylabel("R(x, eps), logits")


def _radii(axes: Any, radius: Tensor, eps_max: float, style: Theme) -> None:
    ordered = radius.sort().values
    share = (100 * (torch.arange(len(ordered)) + 1) / len(ordered)).tolist()
    axes.plot(share, ordered.tolist(), color=style.colours["acert"], lw=2.2, label="ACERT: eps*(x; eps_t)")
    axes.axhline(eps_max, color=style.colours["ibp"], lw=1.6, ls=(0, (4, 2)), label="IBP: eps_t")
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.3, 1.12 * eps_max)
    axes.set_title(f"Training radius of {len(ordered)} images", loc="left", fontsize=11, color=style.text)
    axes.set_xlabel("images in order of radius, %")
    axes.set_ylabel("radius (k/255)")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9), frameon=False, fontsize=9, labelcolor=style.text)


@click.command()
@click.option("--out", default=FIGURES, show_default="docs/figures", type=click.Path(file_okay=False, path_type=Path))
@click.option("--form", default="svg", show_default=True, type=click.Choice(["svg", "png"]))
def main(out: Path, form: str) -> None:
    """Draws method-light and method-dark."""
    for name, style in THEMES.items():
        (out / f"method-{name}.{form}").write_bytes(draw(style, form))


if __name__ == "__main__":
    main()
