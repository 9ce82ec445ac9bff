"""The stored evaluations (`evaluations/NAME.vN.json` and `.radii.npy`) as the gallery reads them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from acert_zoo._files import read_plain, read_text
from acert_zoo._json import parse_json
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.gallery.decided import Decided, read_decided
from acert_zoo.zoo.model_info import ModelInfo


@dataclass(frozen=True, eq=False)
class StoredEvaluation:
    """One model on its test set.

    Attributes:
        radii: float64 [n], certified radii of the first n test images, 0 where misclassified.
        total: number of images that the registry's figures count.
        classes: per class {"class", "n", "correct", "certified": {eps: count}}; empty in evaluations that lack it.
        inexact: how many of the `total` images are approximations in the copy of the data set that was used.
        seconds: time the evaluation took, None where not recorded.
        attacked: float64 [m], distances of adversarial images of the first m test images, upper bounds of their true
            radii: 0 where misclassified, inf where none was found; None where no attack is stored.
        decided: verdicts of complete verification, one entry for each eps.
    """

    radii: np.ndarray
    total: int
    classes: tuple[dict[str, Any], ...]
    inexact: int
    seconds: float | None
    attacked: np.ndarray | None = None
    decided: tuple[Decided, ...] = ()

    def acr_percent(self, eps_max: str) -> float:
        """100 * mean(min(radius, eps_max)) / eps_max over the stored radii."""
        return float(100 * np.minimum(self.radii, float(parse_eps(eps_max))).mean() / float(parse_eps(eps_max)))


def read_evaluation(folder: Path, info: ModelInfo) -> StoredEvaluation:
    """The stored evaluation of a registered model.

    Raises:
        InvalidInputError: it is not there, not readable, or of other weights.
    """
    stem = folder / info.versioned_name
    try:
        document = parse_json(read_text(stem.with_name(f"{stem.name}.json")))
        radii = _read_array(stem.with_name(f"{stem.name}.radii.npy"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"the evaluation of {info.versioned_name} in {folder} cannot be read: {error}"
        ) from None
    if document.get("weights_sha256") != info.sha256:
        raise InvalidInputError(f"the evaluation of {info.versioned_name} in {folder} is of other weights")
    if radii.dtype != np.float64 or radii.ndim != 1 or not len(radii) or not ((radii >= 0) & (radii <= 1)).all():
        raise InvalidInputError(f"the radii of {info.versioned_name} in {folder} are not float64 numbers in [0, 1]")
    return StoredEvaluation(
        radii=radii,
        total=document["n"],
        classes=tuple(document.get("classes", ())),
        inexact=len(document.get("test_inexact", ())),
        seconds=document.get("environment", {}).get("seconds"),
        attacked=_read_attack(folder, info, radii),
        decided=read_decided(stem.with_name(f"{stem.name}.decided.json"), info.sha256, radii),
    )


def _read_array(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(read_plain(path)), allow_pickle=False)
    return array


def _read_attack(folder: Path, info: ModelInfo, radii: np.ndarray) -> np.ndarray | None:
    """The distances that `training/attack.py` stored, None where there are none.

    Raises:
        InvalidInputError: not readable, of other weights, or a distance is not above the image's certified radius.
    """
    stem = folder / info.versioned_name
    if not stem.with_name(f"{stem.name}.attack.json").exists():
        return None
    try:
        document = parse_json(read_text(stem.with_name(f"{stem.name}.attack.json")))
        attacked = _read_array(stem.with_name(f"{stem.name}.attacked.npy"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"the attack on {info.versioned_name} in {folder} cannot be read: {error}") from None
    if document.get("weights_sha256") != info.sha256:
        return None  # of weights that were replaced: no bound is known of these
    if attacked.dtype != np.float64 or attacked.ndim != 1 or not 0 < len(attacked) <= len(radii):
        raise InvalidInputError(f"the attack on {info.versioned_name} in {folder} is no float64 array of images")
    certified = radii[: len(attacked)]
    if not np.where(certified > 0, attacked > certified, attacked >= 0).all():
        raise InvalidInputError(f"the attack on {info.versioned_name} in {folder} contradicts a certified radius")
    return attacked


def wilson_interval(part: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval, in percent, of a share of which `part` of `n` images were counted (Wilson 1927)."""
    if n < 1 or not 0 <= part <= n:
        raise InvalidInputError(f"{part} of {n} images is no share")
    z, share = 1.959964, Fraction(part, n)
    centre = (float(share) + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(share * (1 - share) / n + Fraction(z * z) / (4 * n * n)) ** 0.5
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)
