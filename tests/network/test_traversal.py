"""The two traversals on a graph with a fork, a join, and a step that nobody reads."""

from __future__ import annotations

import torch

from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, Linear, ReLU, Step
from acert_zoo.network.traversal import backward, forward


def linear(source: int, weight: float) -> Linear:
    return Linear(inputs=(source,), weight=torch.tensor([[weight]]), bias=torch.zeros(1))


# value 1 = 2x, 2 = relu(1), 3 = relu(1) again (read by nobody), 4 = 1 + 2, head
NETWORK = Network((linear(0, 2.0), ReLU(inputs=(1,)), ReLU(inputs=(1,)), Add(inputs=(1, 2)), linear(4, 1.0)))


def names(index: int, step: Step, inputs: list[str]) -> str:
    return f"{type(step).__name__}({', '.join(inputs)})"


def test_forward_runs_all_but_the_head() -> None:
    assert forward(NETWORK, "x", names) == "Add(Linear(x), ReLU(Linear(x)))"


def test_forward_from_and_to_a_value() -> None:
    assert forward(NETWORK, "x", names, end=1) == "Linear(x)"
    assert forward(NETWORK, "z", names, begin=1) == "Add(z, ReLU(z))"
    assert forward(NETWORK, "x", names, end=0) == "x"


def test_forward_keeps_all_values_on_request() -> None:
    kept: list[str] = []
    forward(NETWORK, "x", names, kept=kept)
    assert kept == ["x", "Linear(x)", "ReLU(Linear(x))", "ReLU(Linear(x))", "Add(Linear(x), ReLU(Linear(x)))"]


def test_forward_frees_what_nobody_reads_any_more() -> None:
    class Value:
        alive = 0

        def __init__(self) -> None:
            Value.alive += 1

        def __del__(self) -> None:
            Value.alive -= 1

    most = 0

    def rule(index: int, step: Step, inputs: list[Value]) -> Value:
        nonlocal most
        most = max(most, Value.alive)
        return Value()

    chain = Network((*(ReLU(inputs=(i,)) for i in range(20)), linear(20, 1.0)))
    forward(chain, Value(), rule)
    assert most <= 3


def test_backward_merges_claims_that_meet() -> None:
    """A claim is a set of paths from the output."""

    def rule(index: int, step: Step, claim: list[str]) -> list[list[str]]:
        return [[f"{path}.{type(step).__name__}{i}" for path in claim] for i in range(len(step.inputs))]

    met: list[int] = []

    def merge(value: int, a: list[str], b: list[str]) -> list[str]:
        met.append(value)
        return a + b

    found = backward(NETWORK, 4, ["y"], rule, merge)
    assert sorted(found or []) == ["y.Add0.Linear0", "y.Add1.ReLU0.Linear0"]
    assert met == [1]


def test_a_claim_may_end_on_its_way() -> None:
    def rule(index: int, step: Step, claim: int) -> list[int] | None:
        return None if isinstance(step, ReLU) else [claim] * len(step.inputs)

    assert backward(NETWORK, 4, 1, rule, lambda value, a, b: a + b) == 1  # one path is left
    assert backward(NETWORK, 2, 1, rule, lambda value, a, b: a + b) is None
    assert backward(NETWORK, 0, 7, rule, lambda value, a, b: a + b) == 7
