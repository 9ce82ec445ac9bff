"""The two ways through a graph that every algorithm takes: values forward, claims about values backward.

An algorithm says what one step does; in which order steps come, which values they read, and when a value may be
forgotten is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Step

V = TypeVar("V")


def forward(
    network: Network,
    value: V,
    rule: Callable[[int, Step, list[V]], V],
    *,
    begin: int = 0,
    end: int | None = None,
    kept: list[V] | None = None,
) -> V:
    """Value `end` of a graph, from its value `begin`; values are freed as soon as no later step reads them.

    Args:
        value: what stands for value `begin` (0: the network's input).
        rule: (index of a step, the step, its inputs) -> its output.
        end: by default the head's input, every step but the head being run.
        kept: takes all values, from `begin` on, as they come; none is freed then.
    """
    values: list[V | None] = [*[None] * begin, value]
    if kept is not None:
        kept.append(value)
    for index in range(begin, len(network.steps) - 1 if end is None else end):
        step = network.steps[index]
        out = rule(index, step, [values[i] for i in step.inputs])  # type: ignore[misc]
        values.append(out)
        if kept is not None:
            kept.append(out)
            continue
        for i in step.inputs:
            if network.last_use[i] == index:
                values[i] = None
    return values[network.head.inputs[0] if end is None else end]  # type: ignore[return-value]


def backward(
    network: Network,
    index: int,
    claim: V,
    rule: Callable[[int, Step, V], Sequence[V] | None],
    merge: Callable[[int, V, V], V],
) -> V | None:
    """The claim about the network's input that follows from a claim about value `index`; None where none reaches it.

    Args:
        rule: (index of a step, the step, claim about its output) -> a claim about each of its inputs, or None where
            the claim ends there.
        merge: (index of a value, two claims about it) -> one claim.
    """
    pending = {index: claim}
    while pending:
        index = max(pending)
        claim = pending.pop(index)
        if index == 0:
            return claim
        step = network.steps[index - 1]
        parts = rule(index - 1, step, claim)
        if parts is None:
            continue
        for source, part in zip(step.inputs, parts, strict=True):
            pending[source] = merge(source, pending[source], part) if source in pending else part
    return None
