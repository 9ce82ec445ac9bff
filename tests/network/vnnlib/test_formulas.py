"""Normal forms: against evaluation of the formula itself, and the limits on what is read."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acert_zoo.errors import InvalidInputError
from acert_zoo.network.vnnlib import formulas
from acert_zoo.network.vnnlib.formulas import And, Atom, Bound, Expression, Formula, Or, cases, compare

ZERO, ONE = Fraction(0), Fraction(1)
X0, Y0, Y1 = (Expression({v: ONE}) for v in (("X", 0), ("Y", 0), ("Y", 1)))
UNIT = (Bound("X", 0, ZERO, upper=False), Bound("X", 0, ONE, upper=True))


def number(value: int) -> Expression:
    return Expression({}, Fraction(value))


def test_comparisons_by_hand():
    assert compare("<=", X0.times(number(-2)), number(3)) == Bound("X", 0, Fraction(-3, 2), upper=False)
    assert compare(">", Y0, number(1)) == Bound("Y", 0, ONE, upper=False, strict=True)
    atom = compare(">=", Y0, Y1.plus(number(5)))
    assert isinstance(atom, Atom)
    assert atom.expression.terms == {("Y", 0): -1, ("Y", 1): 1}
    assert atom.expression.constant == 5


def test_a_disjunction_over_inputs_gives_boxes_and_joins_equal_ones():
    half = Bound("X", 0, Fraction(1, 2), upper=True)
    whole = Or(
        (
            And((half, compare(">=", Y0, number(2)))),
            And((half, compare(">=", Y1, number(2)))),
            And((Bound("X", 0, Fraction(3, 4), upper=False), compare("<=", Y0, Y1))),
            And((Bound("X", 0, Fraction(2), upper=False), compare("<=", Y0, Y1))),  # empty with x <= 1
        )
    )
    found = cases([*UNIT, whole], 1)
    assert [(c.lower[0], c.upper[0], len(c.conjunctions)) for c in found] == [
        (0, Fraction(1, 2), 2),
        (Fraction(3, 4), 1, 1),
    ]


def holds(formula: Formula, x: Fraction, outputs: list[Fraction]) -> bool:
    if isinstance(formula, And):
        return all(holds(p, x, outputs) for p in formula.parts)
    if isinstance(formula, Or):
        return any(holds(p, x, outputs) for p in formula.parts)
    if isinstance(formula, Bound):
        value = x if formula.kind == "X" else outputs[formula.index]
        if value == formula.value:
            return not formula.strict
        return value < formula.value if formula.upper else value > formula.value
    value = sum((c * (x if k == "X" else outputs[i]) for (k, i), c in formula.expression.terms.items()), ZERO)
    value += formula.expression.constant
    return value < 0 or (value == 0 and not formula.strict)


small = st.fractions(-3, 3, max_denominator=3)
about_outputs = st.builds(
    compare,
    st.sampled_from(["<=", ">=", "<", ">", "="]),
    st.builds(lambda a, b: Y0.times(Expression({}, a)).plus(Y1, b), small, small),
    st.builds(lambda c: Expression({}, c), small),
)
about_inputs = st.builds(
    compare, st.sampled_from(["<=", ">="]), st.just(X0), st.builds(lambda c: Expression({}, c), small)
)
trees = st.recursive(
    about_outputs | about_inputs,
    lambda inner: st.builds(
        lambda kind, parts: kind(tuple(parts)), st.sampled_from([And, Or]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.lists(trees, min_size=1, max_size=3), st.lists(small, min_size=3, max_size=3))
def test_the_normal_form_means_the_same(assertions, point):
    x, *outputs = point
    assertions = [*assertions, Bound("X", 0, Fraction(-3), upper=False), Bound("X", 0, Fraction(3), upper=True)]
    found = cases(assertions, 1)
    assert any(c.violated([x], outputs) for c in found) == all(holds(a, x, outputs) for a in assertions)


@pytest.mark.parametrize(
    ("assertions", "message"),
    [
        ([UNIT[0]], "input 0 has no upper bound"),
        ([UNIT[1], compare(">=", Y0, number(1))], "input 0 has no lower bound"),
        ([*UNIT, compare("<=", X0, Y0)], "ties inputs"),
        ([compare("<", X0, number(1))], "strict bound"),
    ],
)
def test_what_is_beyond_boxes_and_outputs_is_refused(assertions, message):
    with pytest.raises(InvalidInputError, match=message):
        cases(assertions, 1)


def test_products_of_variables_and_other_comparisons_are_refused():
    with pytest.raises(InvalidInputError, match="product of two variables"):
        X0.times(Y0)
    with pytest.raises(InvalidInputError, match="comparison '!='"):
        compare("!=", X0, Y0)


def test_a_normal_form_that_would_explode_is_refused_at_once(monkeypatch):
    choice = Or((compare(">=", Y0, number(1)), compare(">=", Y1, number(1))))
    monkeypatch.setattr(formulas, "MAX_CONJUNCTIONS", 8)
    assert len(cases([*UNIT, choice, choice, choice], 1)[0].conjunctions) == 4  # of 8, without repetitions
    with pytest.raises(InvalidInputError, match="more than 8 conjunctions"):
        cases([*UNIT, *[choice] * 60], 1)
