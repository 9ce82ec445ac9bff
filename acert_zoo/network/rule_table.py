"""What an algorithm knows of layers: one table {type of step -> rule}, and the types that it refuses, with the reason.

Every type of step is in one or the other of every algorithm's table (tests/network/test_layers.py), so that a new
layer is either taught or refused on purpose. CONTRIBUTING.md says how to add one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.layers import Step

R = TypeVar("R")


class RuleTable(Generic[R]):
    """One algorithm's rules. Types are compared exactly: a subclass may compute something else.

    Args:
        algorithm: what the rules are for, as messages say it ("no ... rule for step ...").
        rules: for each type of step that is covered.
        refused: why each of the others is not.
    """

    def __init__(self, algorithm: str, rules: Mapping[type[Step], R], refused: Mapping[type[Step], str]) -> None:
        both = rules.keys() & refused.keys()
        if both:
            raise ValueError(f"both covered and refused: {', '.join(sorted(t.__name__ for t in both))}")
        self.algorithm, self.rules, self.refused = algorithm, dict(rules), dict(refused)

    def but(self, algorithm: str, changes: Mapping[type[Step], R], refused: Mapping[type[Step], str]) -> RuleTable[R]:
        """This table with other rules for some types, and others refused."""
        rules = {kind: rule for kind, rule in (self.rules | dict(changes)).items() if kind not in refused}
        kept = {kind: reason for kind, reason in self.refused.items() if kind not in changes}
        return RuleTable(algorithm, rules, kept | dict(refused))

    def __contains__(self, step: Step) -> bool:
        return type(step) in self.rules

    def __getitem__(self, step: Step) -> R:
        """The rule of a step.

        Raises:
            UnsupportedLayerError: there is none; the message names the step and says why.
        """
        rule = self.rules.get(type(step))
        if rule is None:
            raise UnsupportedLayerError(self.refusal(step))
        return rule

    def refusal(self, step: Step) -> str:
        """Why the step has no rule."""
        reason = self.refused.get(type(step))
        name = f"step {step.name!r} ({type(step).__name__})" if step.name else f"a {type(step).__name__} step"
        return f"no {self.algorithm} rule for {name}" + (f": {reason}" if reason else "")
