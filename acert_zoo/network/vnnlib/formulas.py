"""Formulas over a network's inputs and outputs, and their disjunctive normal form as the cases of a `Property`.

The readers of VNN-LIB produce conjunctions and disjunctions of inequalities; `cases` brings them into the form that
verifiers work with. Neighbouring cases whose boxes are equal are joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from acert_zoo.errors import InvalidInputError
from acert_zoo.network.properties import Case, Conjunction, Inequality

MAX_CONJUNCTIONS = 100_000  # of a normal form: a small file can ask for exponentially many


@dataclass(frozen=True)
class Expression:
    """constant + sum of c v over variables v; a variable is ("X" or "Y", index)."""

    terms: dict[tuple[str, int], Fraction]
    constant: Fraction = Fraction(0)

    def plus(self, other: Expression, factor: Fraction = Fraction(1)) -> Expression:
        """self + factor * other."""
        terms = dict(self.terms)
        for variable, c in other.terms.items():
            terms[variable] = terms.get(variable, Fraction(0)) + factor * c
        return Expression(terms, self.constant + factor * other.constant)

    def times(self, other: Expression) -> Expression:
        """The product, one side of which must be a constant."""
        if self.terms and other.terms:
            raise InvalidInputError("a product of two variables: only linear properties can be verified")
        scale, rest = (self.constant, other) if not self.terms else (other.constant, self)
        return Expression({}).plus(rest, scale)


@dataclass(frozen=True, slots=True)
class Atom:
    """expression <= 0 (< 0 where strict)."""

    expression: Expression
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """One variable at most (`upper`) or at least `value`: most of what a property says, so it has a form of its own."""

    kind: str
    index: int
    value: Fraction
    upper: bool
    strict: bool = False


@dataclass(frozen=True)
class And:
    parts: tuple[Formula, ...]


@dataclass(frozen=True)
class Or:
    parts: tuple[Formula, ...]


Literal = Atom | Bound
Formula = Literal | And | Or
Box = tuple[list[Fraction | None], list[Fraction | None]]


def compare(operator: str, left: Expression, right: Expression) -> Formula:
    """`left operator right`, the operator one of <= >= < > == (or =).

    Raises:
        InvalidInputError: another operator.
    """
    if operator not in ("<=", "<", ">=", ">", "=", "=="):
        raise InvalidInputError(f"comparison {operator!r}; supported: <= >= < > =")
    if operator in ("=", "=="):
        return And((compare("<=", left, right), compare(">=", left, right)))
    difference = left.plus(right, Fraction(-1))
    terms = [(variable, c) for variable, c in difference.terms.items() if c]
    if len(terms) == 1:
        (kind, index), c = terms[0]
        upper = operator.startswith("<") == (c > 0)
        return Bound(kind, index, -difference.constant / c, upper, len(operator) == 1)
    if operator.startswith(">"):
        difference = Expression({}).plus(difference, Fraction(-1))
    return Atom(difference, len(operator) == 1)


def cases(assertions: Sequence[Formula], num_inputs: int) -> tuple[Case, ...]:
    """The cases of which one must hold for all assertions to hold.

    Raises:
        InvalidInputError: an input without a bound on either side, an inequality over several inputs or over inputs and
            outputs, a strict bound of an input, or a normal form of more than MAX_CONJUNCTIONS conjunctions.
    """
    common: list[Literal] = []
    choices: list[Formula] = []
    for assertion in assertions:
        _split(assertion, common, choices)
    if _count(And(tuple(choices))) > MAX_CONJUNCTIONS:
        raise InvalidInputError(f"the property has more than {MAX_CONJUNCTIONS:,} conjunctions in its normal form")
    base: Box = [None] * num_inputs, [None] * num_inputs
    shared = _restrict(common, base)
    found: list[tuple[Box, list[Conjunction]]] = []
    for literals in _conjunctions(And(tuple(choices))):
        narrowed = any(_about_inputs(literal) for literal in literals)
        box = (list(base[0]), list(base[1])) if narrowed else base
        conjunction = tuple(dict.fromkeys((*shared, *_restrict(literals, box))))
        if not found or (found[-1][0] is not box and found[-1][0] != box):  # files name the cases of one box together
            found.append((box, []))
        found[-1][1].append(conjunction)
    complete = [(_complete(low), _complete(high, upper=True), each) for (low, high), each in found]
    return tuple(
        Case(low, high, tuple(dict.fromkeys(each)))
        for low, high, each in complete
        if all(a <= b for a, b in zip(low, high, strict=True))
    )


def _complete(bounds: list[Fraction | None], *, upper: bool = False) -> tuple[Fraction, ...]:
    if None in bounds:
        raise InvalidInputError(f"input {bounds.index(None)} has no {'upper' if upper else 'lower'} bound")
    return tuple(bounds)  # type: ignore[arg-type]


def _split(formula: Formula, common: list[Literal], choices: list[Formula]) -> None:
    """The literals that hold in every case, and the rest."""
    if isinstance(formula, (Atom, Bound)):
        common.append(formula)
    elif isinstance(formula, And) or len(formula.parts) == 1:
        for part in formula.parts:
            _split(part, common, choices)
    else:
        choices.append(formula)


def _count(formula: Formula) -> int:
    """How many conjunctions the normal form has."""
    if isinstance(formula, (Atom, Bound)):
        return 1
    if isinstance(formula, Or):
        return sum(_count(part) for part in formula.parts)
    total = 1
    for part in formula.parts:
        total = min(total * _count(part), MAX_CONJUNCTIONS + 1)
    return total


def _conjunctions(formula: Formula) -> Iterator[tuple[Literal, ...]]:
    if isinstance(formula, (Atom, Bound)):
        yield (formula,)
    elif isinstance(formula, Or):
        for part in formula.parts:
            yield from _conjunctions(part)
    else:
        for chosen in itertools.product(*(list(_conjunctions(part)) for part in formula.parts)):
            yield tuple(itertools.chain.from_iterable(chosen))


def _about_inputs(literal: Literal) -> bool:
    if isinstance(literal, Bound):
        return literal.kind == "X"
    return any(kind == "X" and c for (kind, _), c in literal.expression.terms.items())


def _restrict(literals: Sequence[Literal], box: Box) -> list[Inequality]:
    """Narrows the box by the literals about inputs, in place; returns those about outputs."""
    outputs = []
    for literal in literals:
        if isinstance(literal, Atom):
            if _about_inputs(literal):
                raise InvalidInputError("an inequality that ties inputs to each other or to outputs; boxes are read")
            values = {i: c for (_, i), c in literal.expression.terms.items()}
            outputs.append(Inequality.of(values, -literal.expression.constant, strict=literal.strict))
        elif literal.kind == "Y":
            sign = 1 if literal.upper else -1
            outputs.append(Inequality(((literal.index, sign),), sign * literal.value, literal.strict))
        elif literal.strict:
            raise InvalidInputError(f"a strict bound (< or >) of input {literal.index}; <= and >= are supported")
        else:
            bounds, index = box[literal.upper], literal.index
            old = bounds[index]
            if old is None or (literal.value < old if literal.upper else literal.value > old):
                bounds[index] = literal.value
    return outputs
