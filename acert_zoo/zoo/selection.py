"""Choosing models: fields of a record by name, conditions such as "certified@2/255>=30", order. Needs no torch."""

from __future__ import annotations

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.zoo.model_info import Metric, ModelInfo

Value = str | Fraction | None
TEXT_FIELDS = ("name", "dataset", "method", "kind", "arch", "license", "rounding", "verifier")
NUMBER_FIELDS = ("kappa", "accuracy", "acr", "acr_percent", "parameters", "version", "size", "eps_max", "hours")
CERTIFIED = "certified"  # certified@EPS: the certified accuracy recorded at that eps
FIELDS = (*TEXT_FIELDS, *NUMBER_FIELDS, f"{CERTIFIED}@EPS")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(r"\s*(?P<field>[\w@/.]+)\s*(?P<operator>>=|<=|!=|==|=|>|<)\s*(?P<value>.+?)\s*")


def field_value(info: ModelInfo, field: str) -> Value:
    """The value of a field of a record: text, an exact number, or None where nothing is recorded.

    Fields are those of FIELDS: "certified@2/255" is the certified accuracy in percent recorded at eps = 2/255,
    "acr" the mean radius in pixel units, "acr_percent" the same in percent of eps_max, "hours" the training time.

    Raises:
        UnknownNameError: there is no such field; InvalidInputError: the eps after "@" is not a radius.
    """
    name, at, eps = field.partition("@")
    if at and name == CERTIFIED:
        wanted = parse_eps(eps)
        return _metric(next((m for m in _certified(info) if parse_eps(str(m.eps)) == wanted), None))
    if at or field not in (*TEXT_FIELDS, *NUMBER_FIELDS):
        raise UnknownNameError.near("field of a model", field, FIELDS)
    if field in ("accuracy", "acr", "acr_percent"):
        return _metric(info.metric(field))
    if field in ("rounding", "verifier"):
        proof = next(iter(_certified(info)), None)
        return None if proof is None else proof.rounding if field == "rounding" else proof.method
    if field == "hours":
        seconds = info.training.get("seconds")
        return None if seconds is None else Fraction(repr(seconds)) / 3600
    value = getattr(info, field)
    if field == "eps_max":
        return None if value is None else parse_eps(value)
    return Fraction(repr(value)) if isinstance(value, (int, float)) else value


@dataclass(frozen=True)
class Condition:
    """A comparison of one field: numbers exactly, texts with wildcards (* ? [...]). False where nothing is recorded."""

    field: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """ "accuracy>70", "method=acert", "name!=*_ibp_*", "eps_max<=2/255".

        Raises:
            InvalidInputError: not of that form, or a number is missing; UnknownNameError: no such field.
        """
        match = _CONDITION.fullmatch(text)
        if not match:
            raise InvalidInputError(
                f"condition {text!r}: expected FIELD OPERATOR VALUE, for example 'accuracy>70' or 'certified@2/255>=30'"
            )
        condition = cls(**match.groupdict())
        if condition.field in TEXT_FIELDS:
            if condition.operator not in ("=", "==", "!="):
                raise InvalidInputError(f"condition {text!r}: {condition.field} is text; compare it with = or !=")
        else:
            field_value(_BLANK, condition.field)
            parse_eps(condition.value)  # a number, or a ratio such as 8.8/255
        return condition

    def holds(self, info: ModelInfo) -> bool:
        value = field_value(info, self.field)
        if value is None:
            return False
        if isinstance(value, str):
            return fnmatch.fnmatchcase(value, self.value) == (self.operator != "!=")
        return _OPERATORS[self.operator](value, parse_eps(self.value))


def select(
    infos: Iterable[ModelInfo],
    pattern: str | None = None,
    *,
    dataset: str | None = None,
    method: str | None = None,
    where: str | Sequence[str] = (),
    sort: str | None = None,
) -> list[ModelInfo]:
    """Those of `infos` that fulfil everything, in their order or sorted.

    Args:
        pattern: names with wildcards ("cifar10_*"); `dataset` and `method` likewise.
        where: conditions (see `Condition.parse`), all of which must hold.
        sort: a field (see `field_value`): texts and kappa rising, other numbers falling; "-FIELD" the other way round.
            Models without a value come last.

    Raises:
        UnknownNameError: a field that does not exist, or a name without wildcards that none of `infos` has;
            InvalidInputError: a condition of another form, or an argument that is no text.
    """
    infos = list(infos)
    conditions = [where] if isinstance(where, str) else where
    if not isinstance(conditions, Sequence) or not all(isinstance(v, str) for v in conditions):
        raise InvalidInputError(f"where: expected a condition such as 'accuracy>70' or several, got {where!r:.80}")
    for name, text in (("pattern", pattern), ("dataset", dataset), ("method", method), ("sort", sort)):
        if text is not None and not isinstance(text, str):
            raise InvalidInputError(f"{name}: expected a text, got {text!r:.80}")
    for kind, asked, known in (
        ("model", pattern, {m.name for m in infos}),
        ("data set of a model", dataset, {m.dataset for m in infos if m.dataset}),
        ("method of a model", method, {m.method for m in infos if m.method}),
    ):
        if asked is not None and not any(c in asked for c in "*?[") and asked not in known:
            raise UnknownNameError.near(kind, asked, known)
    parsed = [Condition.parse(text) for text in conditions]
    named = (("name", pattern), ("dataset", dataset), ("method", method))
    parsed += [Condition(field, "=", text) for field, text in named if text is not None]
    chosen = [m for m in infos if all(condition.holds(m) for condition in parsed)]
    if sort is None:
        return chosen
    backwards, field = sort.startswith("-"), sort.removeprefix("-")
    field_value(_BLANK, field)
    falling = (field not in (*TEXT_FIELDS, "kappa")) != backwards
    with_value = [m for m in chosen if field_value(m, field) is not None]
    with_value.sort(key=lambda m: field_value(m, field), reverse=falling)  # type: ignore[arg-type,return-value]
    return with_value + [m for m in chosen if field_value(m, field) is None]


def _certified(info: ModelInfo) -> list[Metric]:
    return [m for m in info.metrics if m.metric == "certified_accuracy" and m.split == "test" and m.eps is not None]


def _metric(metric: Metric | None) -> Fraction | None:
    return None if metric is None else Fraction(repr(metric.value))


_BLANK = ModelInfo(name="blank", arch="", arch_kwargs={})  # asks whether a field exists
