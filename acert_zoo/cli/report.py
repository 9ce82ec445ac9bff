"""What `acert-zoo certify` says about a result: for people, and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from acert_zoo.cli.numbers import percent, radius
from acert_zoo.cli.terminal import print_facts, print_table, printable
from acert_zoo.data.registration import class_names, dataset_info
from acert_zoo.errors import UnknownNameError
from acert_zoo.exact_numbers import down, duration, parse_eps, up
from acert_zoo.rounding import RoundingLevel

if TYPE_CHECKING:
    from acert_zoo.attacks.attack import AttackReport
    from acert_zoo.certificates.results import Certificates
    from acert_zoo.cli.input_images import Inputs
    from acert_zoo.zoo.model_info import ModelInfo

ROWS = 10
_MEANING = {
    RoundingLevel.FLOAT32: "bounds in floating point, their rounding not proved",
    RoundingLevel.FLOAT64: "bounds in floating point, their rounding not proved",
    RoundingLevel.REAL_SOUND: "proved for real arithmetic with the stored weights",
    RoundingLevel.FLOAT32_DEPLOYED: "proved for the float32 program, in any order of summation",
}


@dataclass(frozen=True)
class Claim:
    """The share of images certified at radius `eps` (pixel units), and the least share asked for (None: any)."""

    text: str
    eps: Fraction
    least: Fraction | None = None

    def count(self, result: Certificates) -> int:
        """How many images are certified at `eps`."""
        return int(result.certified(self.eps).sum())

    def holds(self, result: Certificates) -> bool:
        """Whether at least the asked share is certified; of no images, none is."""
        return self.least is None or Fraction(self.count(result), max(len(result), 1)) >= self.least


@dataclass(frozen=True)
class Report:
    """Everything that is said about one run; `seconds` is its wall-clock time."""

    result: Certificates
    inputs: Inputs
    info: ModelInfo | None
    claims: list[Claim]
    seconds: float
    attack: AttackReport | None = None
    classes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The JSON document: the certificates, shares at each eps, and whether what was asked for holds."""
        shares = [
            {"eps": c.text, "certified": c.count(self.result), "least": None if c.least is None else float(c.least)}
            | {"holds": c.holds(self.result)}
            for c in self._claims()
        ]
        attack = {} if self.attack is None else {"attack": self.attack.to_dict()}
        notes = {"notes": list(self.inputs.notes)} if self.inputs.notes else {}
        return {
            **self.result.to_dict(self.classes or None),
            "claims": shares,
            "seconds": self.seconds,
            **attack,
            **notes,
        }

    def print(self) -> None:
        """The report for people."""
        print_facts(self._model(), self._facts())
        if len(self.result):
            click.echo()
            self._print_images()
        for note in self.inputs.notes:
            click.echo(f"note: {note}", err=True)

    def _claims(self) -> list[Claim]:
        """The radii asked for, else those that results on this data set are usually reported at."""
        if self.claims or self._dataset is None:
            return self.claims
        try:
            return [Claim(e, parse_eps(e)) for e in dataset_info(self._dataset).reported_eps]
        except UnknownNameError:
            return []

    @property
    def _dataset(self) -> str | None:
        return self.inputs.dataset or (self.info.dataset if self.info else None)

    def _model(self) -> str:
        if self.info is None:
            return "network"
        kappa = "" if self.info.kappa is None else f" with kappa {self.info.kappa:g}"
        method = f"  ({self.info.dataset}, trained by {self.info.method}{kappa})" if self.info.method else ""
        if self.info.kind == "cascade" and self.info.dataset:
            method = f"  ({self.info.dataset}, a certified cascade)"
        return f"{self.info.versioned_name}{method}"

    def _facts(self) -> list[tuple[str, str]]:
        result, n = self.result, len(self.result)
        facts = [("images", f"{n:,} {self.inputs.description}")]
        if result.certifies == "label":
            correct = int(result.correct.sum())
            facts.append(("accuracy", f"{percent(correct, n)}  ({correct:,} of {n:,})"))
        else:
            facts.append(("certified for", "the model's own prediction (no labels given)"))
        if n:
            eps_max = self.info.eps_max if self.info else None
            share = f"  ({down(result.acr_percent(eps_max), 2)} % of {eps_max})" if eps_max else ""
            facts.append(("ACR", f"{radius(result.acr)}{share}"))
        for claim in self._claims():
            count = claim.count(result)
            verdict = "" if claim.holds(result) else f"  UNDER THE ASKED {down(100 * (claim.least or 0), 2)} %"
            facts.append((f"certified at {claim.text}", f"{percent(count, n)}  ({count:,} of {n:,}){verdict}"))
        if self.attack is not None:
            found = int((result.correct & self.attack.result.success).sum())
            facts.append(("attacked", f"adversarial images found for {found:,}, none within a certified radius"))
        methods = ", ".join(f"{name} ({k:,})" if k < n else name for name, k in Counter(result.method).items())
        facts.append(("bounds", methods or result.header.method))
        facts.append(("rounding", f"{result.rounding}: {_MEANING[RoundingLevel(result.rounding)]}"))
        facts.append(("time", duration(self.seconds) + (f"  ({1000 * self.seconds / n:.1f} ms an image)" if n else "")))
        return facts

    def _print_images(self) -> None:
        shown = range(len(self.result) if self.inputs.dataset is None else min(ROWS, len(self.result)))
        columns = ["image", *(["label"] if self.result.certifies == "label" else []), "prediction", "certified radius"]
        if self.attack is not None:
            columns.append("attacked radius")
        if self.result.route is not None:
            columns.append("answered by")
        print_table(columns, [self._image_row(i) for i in shown])
        rest = len(self.result) - len(shown)
        if rest:
            click.echo(f"... and {rest:,} more (all of them with --out FILE or --json)")

    def _image_row(self, i: int) -> list[str]:
        result = self.result
        prediction, label = int(result.prediction[i]), int(result.label[i])
        wrong = "" if prediction == label else " (wrong)"
        row = [printable(result.ids[i])]
        if result.certifies == "label":
            row.append(self._class(label))
        row += [self._class(prediction) + wrong, "-" if wrong else radius(result.radius[i].item())]
        if self.attack is not None:
            row.append("-" if wrong else _attacked(self.attack.attacked[i].item()))
        if result.route is not None:
            row.append(_route(result.route[i]))
        return row

    def _class(self, label: int) -> str:
        classes = self.classes or class_names(self._dataset)
        return f"{label} {classes[label]}" if label < len(classes) and classes[label] != str(label) else str(label)


def _attacked(value: float) -> str:
    return "none found" if math.isinf(value) else f"under {up(value, 6)}"


def _route(route: Any) -> str:
    return f"member {route}" if isinstance(route, int) else str(route)
