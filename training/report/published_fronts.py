"""Published trade-offs of certified training, for the figures: never a result of this project.

CNN-7 (17.2 M parameters on CIFAR-10); per method the points that none of its own dominates, as (certified accuracy,
natural accuracy) in percent of the images that were verified. Where a source tuned its hyper-parameters on validation
images as well as on test images, those of the validation images are given.
"""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[float, float]


@dataclass(frozen=True)
class Front:
    """Published (certified %, natural %) points of one data set and eps, by method."""

    dataset: str
    eps: str
    verifier: str
    n: int
    tuned_on: str
    source: str
    points: dict[str, tuple[Pair, ...]]


FRONTS: tuple[Front, ...] = (
    Front(
        dataset="cifar10",
        eps="2/255",
        verifier="alpha-beta-CROWN, 1,000 s an image",
        n=10000,
        tuned_on="validation",
        source="ADA-research/CTRAIN, papers/rethinking_evaluation_paradigms (arXiv 2606.02134)",
        points={
            "CROWN-IBP": ((53.94, 76.61), (58.05, 75.4), (59.15, 73.66), (59.68, 72.65)),
            "IBP": ((51.47, 72.8), (51.48, 72.03), (53.76, 71.6), (54.11, 70.47), (54.4, 70.07), (54.41, 68.48)),
            "MTL-IBP": ((60.82, 80.35), (61.05, 79.64), (61.84, 78.56), (62.76, 78.52)),
            "SABR": ((60.11, 81.68), (60.67, 81.57), (61.94, 80.48), (62.76, 79.13), (63.2, 77.01), (63.23, 76.44)),
        },
    ),
    Front(
        dataset="cifar10",
        eps="8/255",
        verifier="alpha-beta-CROWN, 1,000 s an image",
        n=10000,
        tuned_on="validation",
        source="ADA-research/CTRAIN, papers/rethinking_evaluation_paradigms (arXiv 2606.02134)",
        points={
            "CROWN-IBP": (
                (30.42, 60.18),
                (30.83, 59.98),
                (32.73, 57.2),
                (33.35, 55.13),
                (33.96, 54.18),
                (34.04, 51.84),
            ),
            "IBP": (
                (29.76, 59.81),
                (30.48, 59.61),
                (31.08, 57.74),
                (31.61, 57.5),
                (32.66, 55.25),
                (33.47, 54.67),
                (33.78, 53.85),
                (34.11, 51.17),
                (34.33, 51.12),
            ),
            "MTL-IBP": ((34.27, 56.18), (34.4, 54.59), (34.49, 52.23), (34.7, 50.78), (34.88, 49.89), (35.0, 49.18)),
            "SABR": ((33.53, 56.81), (33.68, 55.37), (33.95, 54.74), (34.01, 54.16), (34.07, 53.53), (34.25, 52.16)),
        },
    ),
    Front(
        dataset="mnist",
        eps="0.3",
        verifier="alpha-beta-CROWN, 300 s an image",
        n=1000,
        tuned_on="test",
        source="ADA-research/CTRAIN, papers/rethinking_evaluation_paradigms (arXiv 2606.02134)",
        points={
            "CROWN-IBP": ((92.5, 97.98),),
            "IBP": ((92.5, 98.56), (93.7, 98.55)),
            "MTL-IBP": ((90.4, 98.67), (92.4, 98.66)),
            "SABR": ((91.4, 98.79), (92.8, 98.77)),
        },
    ),
    Front(
        dataset="tinyimagenet",
        eps="1/255",
        verifier="alpha-beta-CROWN, 1,000 s an image",
        n=10000,
        tuned_on="test",
        source="ADA-research/CTRAIN, papers/rethinking_evaluation_paradigms (arXiv 2606.02134)",
        points={
            "CROWN-IBP (loss fusion)": ((20.71, 32.38), (20.96, 31.21), (22.2, 30.82)),
            "IBP": ((20.79, 34.24), (21.6, 32.12), (21.82, 31.92)),
            "MTL-IBP": ((30.45, 39.8), (30.67, 39.75)),
            "SABR": ((23.13, 42.27), (27.42, 42.1), (28.86, 40.61)),
        },
    ),
)


def fronts_of(dataset: str) -> list[Front]:
    """Those of one data set, by eps."""
    return [front for front in FRONTS if front.dataset == dataset]


def front_kind(front: Front) -> str:
    """The name of the figure that shows it."""
    return f"rivals-{front.eps.replace('/', '_')}"


def front_eps(kind: str) -> str:
    """The eps of a figure of that name."""
    return kind.removeprefix("rivals-").replace("_", "/")
