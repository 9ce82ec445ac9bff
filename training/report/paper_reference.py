"""The published curves of the ACERT paper (arXiv 2307.13078), for the figures: never a result of this project.

Read off the authors' figures to about 0.1: (ACR in % of eps_max, natural accuracy in %), CNN-7, full training cost.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class PaperCurves:
    """Published (ACR %, accuracy %) points of one data set. `network` says what was trained."""

    eps_max: str
    network: str
    acert: tuple[Point, ...]
    ibp: tuple[Point, ...]
    sabr: Point
    standard: Point | None = None


PAPER: dict[str, PaperCurves] = {
    "cifar10": PaperCurves(
        eps_max="8.8/255",
        network="CNN-7, 17.2 M parameters, 160 epochs",
        acert=(
            (0.62, 86.94),
            (1.88, 84.59),
            (20.28, 75.79),
            (27.97, 73.13),
            (31.85, 70.84),
            (38.00, 67.96),
            (41.16, 64.66),
            (41.80, 62.24),
        ),
        ibp=((3.8, 80.5), (8.4, 76.7), (35.4, 67.3), (40.7, 62.8), (42.3, 59.5), (43.0, 55.0)),
        sabr=(42.45, 52.39),
        standard=(0.0, 91.84),
    ),
    "tinyimagenet": PaperCurves(
        eps_max="1/255",
        network="CNN-7, 17.3 M parameters, 160 epochs",
        acert=((0.48, 45.58), (6.55, 40.78), (17.97, 35.34), (20.61, 33.38), (21.38, 32.67)),
        ibp=((7.4, 37.9), (18.0, 31.0), (19.9, 30.7), (21.1, 25.1)),
        sabr=(19.99, 28.86),
    ),
}
