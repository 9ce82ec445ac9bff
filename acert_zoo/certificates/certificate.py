"""The certificate of one image."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from acert_zoo.exact_numbers import parse_pixel_eps, round_up

Eps = str | int | float | Fraction


@dataclass(frozen=True)
class Certificate:
    """The certificate of one image; fields as in `Certificates`, whose elements these are."""

    id: str
    radius: float
    margin: float
    prediction: int
    label: int
    method: str
    rounding: str
    seconds: float
    pixel_sha256: str
    route: int | None = None

    @property
    def correct(self) -> bool:
        """Whether the prediction is the label."""
        return self.prediction == self.label

    def certified(self, eps: Eps) -> bool:
        """Whether the answer is proved within `eps`, compared exactly ("2/255" is the fraction)."""
        return self.radius > 0 and self.radius >= round_up(parse_pixel_eps(eps))
