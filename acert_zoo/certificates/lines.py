"""The header and the lines of a certificate file: what each says, checked on construction. Needs no torch.

docs/certificates.md describes the fields. Reading and writing files: `file.py`.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from acert_zoo.exact_numbers import shortest_down
from acert_zoo.rounding import BoundMethod, RoundingLevel

_DIGEST = re.compile(r"[0-9a-f]{64}")
CERTIFIES = ("label", "prediction")
_RADIUS = re.compile(r"[0-9]{1,40}(\.[0-9]{1,400})?(e-?[0-9]{1,3})?")


class InvalidLineError(ValueError):
    """What is wrong with one line; the reader adds where."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What all lines of a file have in common.

    Attributes:
        model, model_version: registered name and version, or None for a network of one's own.
        weights_sha256: digest of the weights file, None where the network came from none.
        network_sha256: digest of the network that bounds saw (`network.digest.network_sha256`).
        rounding: the weakest level of any line; while the file is incomplete, the weakest that any line may yet have.
        certifies: "label" (given labels) or "prediction" (the model's own).
        n: how many lines the complete file has.
        created: ISO 8601, UTC.
    """

    package_version: str
    model: str | None
    model_version: int | None
    weights_sha256: str | None
    network_sha256: str
    method: str
    rounding: str
    certifies: str
    dataset: str | None
    split: str | None
    n: int
    created: str
    norm: str = "linf"

    def __post_init__(self) -> None:
        for name in ("package_version", "method", "created"):
            _need_string(name, getattr(self, name))
        for name in ("model", "dataset", "split"):
            if getattr(self, name) is not None:
                _need_string(name, getattr(self, name))
        if self.model_version is not None:
            _need_integer("model_version", self.model_version)
        if self.weights_sha256 is not None:
            _need_digest("weights_sha256", self.weights_sha256)
        _need_digest("network_sha256", self.network_sha256)
        _need_one_of("rounding", self.rounding, RoundingLevel)
        _need_one_of("certifies", self.certifies, CERTIFIES)
        _need_integer("n", self.n)
        _need_one_of("norm", self.norm, ("linf",))

    def differences(self, other: Header) -> list[str]:
        """Names of the fields that must agree for two runs to share a file, and do not."""
        free = ["n", "created", "package_version"]
        if self.method != BoundMethod.IBP:
            free.append("rounding")  # known only when the lines are there
        names = [f.name for f in dataclasses.fields(self) if f.name not in free]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """The certificate of one image.

    Attributes:
        radius: decimal string; neither its exact value nor its float64 reading exceeds what was proved.
        margin: proved lower bound of the margin at that radius, in logit units; None where nothing was proved, and for
            cascades, whose radius belongs to several margins.
        route: how a cascade answered, else None.
    """

    id: str
    pixel_sha256: str
    label: int
    prediction: int
    certifies: str
    radius: str
    margin: float | None
    method: str
    rounding: str
    seconds: float
    route: Any = None

    def __post_init__(self) -> None:
        _need_string("id", self.id)
        _need_digest("pixel_sha256", self.pixel_sha256)
        _need_integer("label", self.label)
        _need_integer("prediction", self.prediction)
        _need_one_of("certifies", self.certifies, CERTIFIES)
        _need_radius("radius", self.radius)
        if self.margin is not None:
            _need_number("margin", self.margin)
        _need_string("method", self.method)
        _need_one_of("rounding", self.rounding, RoundingLevel)
        _need_number("seconds", self.seconds)
        need(self.seconds >= 0, "seconds", self.seconds, "a number >= 0")

    def contradictions(self) -> list[str]:
        """What cannot be true whatever the image is."""
        found = []
        if self.certifies == "prediction" and self.label != self.prediction:
            found.append(f"certifies the prediction {self.prediction}, but has label {self.label}")
        elif float(self.radius) > 0 and self.label != self.prediction:
            found.append(
                f"has radius {self.radius} although label {self.label} is not the prediction {self.prediction}"
            )
        if float(self.radius) > 0 and (self.route is None if self.margin is None else self.margin <= 0):
            found.append(f"has radius {self.radius} at a margin of {self.margin}")
        return found


def utc_now() -> str:
    """The present time as `Header.created` has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def radius_text(radius: float) -> str:
    """The radius as a file holds it: the shortest decimal that claims no more, checked by reading it back."""
    text = shortest_down(radius)
    if float(text) > radius:
        raise AssertionError(f"{text!r} reads as more than {radius!r}")
    return text


def need(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        raise InvalidLineError(f"{name} is {show(value)}; expected {expected}")


def _need_string(name: str, value: Any) -> None:
    need(isinstance(value, str) and 0 < len(value) <= 1024, name, value, "a string of 1 to 1,024 characters")


def _need_integer(name: str, value: Any) -> None:
    need(type(value) is int and 0 <= value < 2**31, name, value, "an integer from 0 to 2^31 - 1")


def _need_number(name: str, value: Any) -> None:
    finite = type(value) in (int, float) and abs(value) < 2**1023 and math.isfinite(value)
    need(finite, name, value, "a finite number")


def _need_digest(name: str, value: Any) -> None:
    digest = isinstance(value, str) and _DIGEST.fullmatch(value) is not None
    need(digest, name, value, "64 lower-case hexadecimal digits")


def _need_radius(name: str, value: Any) -> None:
    decimal = isinstance(value, str) and len(value) < 450 and _RADIUS.fullmatch(value) is not None
    need(decimal and 0 <= float(value) <= 1, name, value, "a decimal number in [0, 1], as a string")


def _need_one_of(name: str, value: Any, accepted: Iterable[str]) -> None:
    names = tuple(accepted)
    need(value in names, name, value, " or ".join(map(repr, map(str, names))))


def show(value: Any) -> str:
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):  # an integer too long to print, or deep nesting
        return f"a {type(value).__name__}"
