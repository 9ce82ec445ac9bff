"""The measured result of one model on one test set: every number of the registry and the cards comes from here.

All figures are computed exactly from the certified radii (float64, each proved) as fractions and rounded down once,
to the decimals that JSON then holds (6 of a percentage, 9 of a radius):
accuracy = 100 * correct / n, certified accuracy at eps = 100 * #{r >= eps, correct} / n, ACR = mean r with 0 for
misclassified images (pixel units of [0, 1]), ACR % = 100 * mean(min(r, eps_max)) / eps_max (the paper's axis).
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import down, parse_eps, round_down, round_up
from training.results.zoo_folder import ZooFolder, document_head, dump_json, write_atomic

_CURVE_POINTS = 97  # certified accuracy on a grid over [0, 1.5 eps_max], for the figures

# Two machines may sum in another order: radii agree to the search's tolerance, and an image whose two largest logits
# tie to the last bits (so that its label is up to the machine) has a radius below the absolute tolerance.
RADIUS_RTOL = 1e-5
RADIUS_ATOL = 1e-7


def floor_decimal(value: Fraction, digits: int) -> float:
    """`value` >= 0 cut to `digits` decimals: the number that prints so is never more than `value`."""
    return float(down(value, digits))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Certified radii of a test set.

    Attributes:
        radius: float64 [n], pixel units, each a proved lower bound; 0 where misclassified.
        correct: bool [n].
        total: number of images in the whole split (n < total under `--limit`).
        label: int64 [n], the true classes, for the figures of each class; None where they are not known any more.
        inexact: indices below n of test images that are approximations in the copy of the data set that was used.
        environment: seconds, threads, processes, versions.
    """

    name: str
    version: int | None
    weights_sha256: str
    dataset: str
    split: str
    eps_max: str
    radius: np.ndarray
    correct: np.ndarray
    total: int
    method: str = "ibp"
    rounding: str = "real-sound"
    label: np.ndarray | None = None
    inexact: tuple[int, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.radius.shape != self.correct.shape or self.radius.ndim != 1 or not len(self.radius):
            raise InvalidInputError(
                f"an evaluation needs one radius for each image, got {self.radius.shape} and {self.correct.shape}"
            )
        if not np.isfinite(self.radius).all() or (self.radius < 0).any() or (self.radius[~self.correct] > 0).any():
            raise InvalidInputError("radii must be finite, not negative, and 0 where the image is misclassified")
        if self.label is not None and self.label.shape != self.radius.shape:
            raise InvalidInputError(f"an evaluation of {self.n} images needs one label each, got {self.label.shape}")

    @property
    def n(self) -> int:
        return len(self.radius)

    @property
    def accuracy(self) -> float:
        return floor_decimal(Fraction(100 * int(self.correct.sum()), self.n), 6)

    @property
    def acr(self) -> float:
        return floor_decimal(sum(map(Fraction, self.radius.tolist()), Fraction(0)) / self.n, 9)

    def acr_percent(self, eps_max: str) -> float:
        cap = parse_eps(eps_max)
        total = sum((min(Fraction(r), cap) for r in self.radius.tolist()), Fraction(0))
        return floor_decimal(100 * total / self.n / cap, 6)

    def certified_accuracy(self, eps: str | Fraction) -> float:
        """In percent; an image counts where it is correct and its radius is at least eps, compared exactly."""
        eps = parse_eps(eps)
        proved = sum(Fraction(r) >= eps for r in self.radius[self.correct].tolist())
        return floor_decimal(Fraction(100 * proved, self.n), 6)

    def metrics(self) -> list[dict[str, Any]]:
        """The registry's metrics, each with its unit, eps, n, data set, split, method and rounding."""
        common = {"n": self.n, "dataset": self.dataset, "split": self.split}
        proof = {"method": self.method, "rounding": self.rounding}
        return [
            {"metric": "accuracy", "value": self.accuracy, "unit": "%", "eps": None, **common},
            {"metric": "acr", "value": self.acr, "unit": "pixel", "eps": None, **common, **proof},
            {
                "metric": "acr_percent",
                "value": self.acr_percent(self.eps_max),
                "unit": "%",
                "eps": self.eps_max,
                **common,
                **proof,
            },
            *(
                {
                    "metric": "certified_accuracy",
                    "value": self.certified_accuracy(eps),
                    "unit": "%",
                    "eps": eps,
                    **common,
                    **proof,
                }
                for eps in dataset_info(self.dataset).reported_eps
            ),
        ]

    def curve(self) -> dict[str, list[float]]:
        """Certified accuracy (percent) on an even grid of eps (pixel units) over [0, 1.5 eps_max]."""
        top = parse_eps(self.eps_max) * Fraction(3, 2)
        grid = [top * i / (_CURVE_POINTS - 1) for i in range(_CURVE_POINTS)]
        return {
            "eps": [round_down(e) for e in grid],
            "certified_accuracy": [self.certified_accuracy(e) for e in grid],
        }

    def classes(self) -> list[dict[str, Any]]:
        """For each class of the data set the numbers of images, of correct ones and of those certified at each reported
        eps; empty where the labels are not known."""
        if self.label is None:
            return []
        info = dataset_info(self.dataset)
        proved = {eps: self.correct & (self.radius >= round_up(parse_eps(eps))) for eps in info.reported_eps}
        return [
            {
                "class": k,
                "n": int((self.label == k).sum()),
                "correct": int(self.correct[self.label == k].sum()),
                "certified": {eps: int(held[self.label == k].sum()) for eps, held in proved.items()},
            }
            for k in range(info.num_classes)
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            **document_head(self.name, self.version, self.weights_sha256, self.dataset, self.split),
            "n": self.n,
            "total": self.total,
            "test_inexact": list(self.inexact),
            "environment": self.environment,
            "metrics": self.metrics(),
            "curve": self.curve(),
            "classes": self.classes(),
        }


def store_evaluation(zoo: ZooFolder, evaluation: Evaluation) -> None:
    """Writes the evaluation's JSON and the radii of its images beside it."""
    if evaluation.version is None:
        raise InvalidInputError("only evaluations of a registered version are stored")
    buffer = io.BytesIO()
    np.save(buffer, evaluation.radius, allow_pickle=False)
    write_atomic(zoo.radii(evaluation.name, evaluation.version), buffer.getvalue())
    write_atomic(zoo.evaluation(evaluation.name, evaluation.version), dump_json(evaluation.to_dict()))


def read_radii(path: Path) -> np.ndarray:
    radii = np.load(path, allow_pickle=False)
    if radii.dtype != np.float64 or radii.ndim != 1:
        raise InvalidInputError(f"{path}: expected a float64 array of radii, got {radii.dtype} {radii.shape}")
    return radii


def differences(new: Evaluation, stored_path: Path, radii_path: Path) -> list[str]:
    """What differs between a fresh evaluation and the stored one beyond what machines may; empty where it reproduces.

    Radii of the images that both have are compared one by one; the metrics where the fresh evaluation covers as many.
    """
    stored, radii = json.loads(stored_path.read_text(encoding="utf-8")), read_radii(radii_path)
    found = []
    if stored["weights_sha256"] != new.weights_sha256:
        found.append(f"weights: stored sha256 {stored['weights_sha256']}, loaded {new.weights_sha256}")
    n = min(len(radii), new.n)
    wrong = np.flatnonzero(~np.isclose(new.radius[:n], radii[:n], rtol=RADIUS_RTOL, atol=RADIUS_ATOL))
    found += [f"image {i}: stored radius {radii[i]!r}, now {new.radius[i]!r}" for i in wrong.tolist()]
    if new.n != stored["n"]:
        return found
    tolerance = {"acr": ("rtol", RADIUS_RTOL), "acr_percent": ("rtol", RADIUS_RTOL)}
    fresh = {(m["metric"], m["eps"]): m["value"] for m in new.metrics()}
    for m in stored["metrics"]:
        value = fresh.get((m["metric"], m["eps"]))
        kind, size = tolerance.get(m["metric"], ("images", 1))
        allowed = size * m["value"] if kind == "rtol" else 100.0001 * size / new.n
        if value is None or abs(value - m["value"]) > allowed:
            found.append(f"{m['metric']} (eps {m['eps']}): stored {m['value']}, now {value}")
    return found
