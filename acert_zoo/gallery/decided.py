"""Stored verdicts of complete verification (`evaluations/NAME.vN.decided.json`) as the gallery reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acert_zoo._json import parse_json
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_eps, round_up


@dataclass(frozen=True)
class Decided:
    """The first `n` test images at one eps, each given `budget` seconds of complete verification.

    Attributes:
        misclassified, refuted, robust, undecided: numbers of images; they sum to n. Refuted: broken by an adversarial
            image.
        proved_by: for each method, from the cheapest on, the number of robust images that it proved.
        seconds_per_image: wall time an image took.
    """

    eps: str
    n: int
    budget: float
    misclassified: int
    refuted: int
    robust: int
    undecided: int
    proved_by: Mapping[str, int]
    seconds_per_image: float

    @property
    def correct(self) -> int:
        return self.n - self.misclassified

    @property
    def unbroken(self) -> int:
        """Images for which no adversarial image is known: an upper bound of how many are robust."""
        return self.robust + self.undecided


def read_decided(path: Path, weights_sha256: str | None, radii: np.ndarray) -> tuple[Decided, ...]:
    """The verdicts in a file, ordered by eps; none where there is no file, or it is of other weights.

    Args:
        radii: float64 [n], the certified radii of the first test images: none of these images may be refuted.

    Raises:
        InvalidInputError: not readable, counts that do not add up, or a verdict contradicts certified radii.
    """
    if not path.exists():
        return ()
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
        if document["weights_sha256"] != weights_sha256:
            return ()
        entries = [_entry(entry) for entry in document["decided"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"the verdicts in {path} cannot be read: {error!r}") from None
    for entry in entries:
        counted = entry.misclassified + entry.refuted + entry.robust + entry.undecided
        if not counted == entry.n > 0 or sum(entry.proved_by.values()) != entry.robust:
            raise InvalidInputError(f"the counts in {path} at eps {entry.eps} do not add up to {entry.n} images")
        certified = int((radii[: entry.n] >= round_up(parse_eps(entry.eps))).sum())
        if certified > entry.unbroken:
            raise InvalidInputError(
                f"{path} leaves {entry.unbroken} images unbroken at eps {entry.eps}, but {certified} are certified"
            )
    return tuple(sorted(entries, key=lambda entry: parse_eps(entry.eps)))


def _entry(entry: Mapping[str, Any]) -> Decided:
    return Decided(
        eps=entry["eps"],
        n=entry["n"],
        budget=entry["budget_seconds"],
        proved_by=dict(entry["proved_by"]),
        seconds_per_image=entry["seconds_per_image"],
        **{key: entry["counts"][key] for key in ("misclassified", "refuted", "robust", "undecided")},
    )
