"""The exact minimum of a linear function of a tiny ReLU network, by enumeration of activation patterns in rationals.

Under one pattern (a sign for every neuron) the network is linear, and its region is a polytope: the box cut by
half-spaces s z >= 0. A linear function is smallest at a vertex, and each vertex is where as many constraints as there
are inputs hold with equality. All patterns, all such sets of constraints: exponential, and without any rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch

from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Linear, ReLU

Row = list[Fraction]  # coefficients of the inputs, then the constant


def exact_minimum(
    network: Network,
    lower: Sequence[Fraction],
    upper: Sequence[Fraction],
    row: Sequence[Fraction],
    fixed: Sequence[tuple[int, int]] = (),
) -> Fraction | None:
    """min of <row, logits> over the box, neurons in `fixed` (number, sign) kept; None where no point satisfies that.

    Args:
        network: Linear and ReLU steps one after the other, inputs [N, d].
    """
    best = None
    for constraints, values in _patterns(network, len(lower), dict(fixed)):
        objective = [
            sum((c * v[k] for c, v in zip(row, values, strict=True)), Fraction(0)) for k in range(len(lower) + 1)
        ]
        for point in _vertices(constraints, lower, upper):
            value = _at(objective, point)
            best = value if best is None or value < best else best
    return best


def _patterns(network: Network, inputs: int, fixed: dict[int, int]) -> Iterator[tuple[list[Row], list[Row]]]:
    """(constraints s z >= 0, logits as linear functions of the input) of every pattern."""
    widths = [s.weight.shape[0] for s in network.steps[:-1] if isinstance(s, Linear)]
    total = sum(widths)
    for signs in itertools.product((1, -1), repeat=total):
        if any(signs[i] != s for i, s in fixed.items()):
            continue
        values = [[Fraction(int(i == k)) for k in range(inputs)] + [Fraction(0)] for i in range(inputs)]
        constraints: list[Row] = []
        first = 0
        for step in network.steps:
            if isinstance(step, Linear):
                values = _linear(step, values)
            else:
                assert isinstance(step, ReLU)
                own = signs[first : first + len(values)]
                first += len(values)
                constraints += [[s * c for c in z] for s, z in zip(own, values, strict=True)]
                values = [z if s > 0 else [Fraction(0)] * (inputs + 1) for s, z in zip(own, values, strict=True)]
        yield constraints, values


def _linear(step: Linear, values: list[Row]) -> list[Row]:
    out = []
    for weights, bias in zip(step.weight.tolist(), step.bias.tolist(), strict=True):
        row = [
            sum((Fraction(w) * v[k] for w, v in zip(weights, values, strict=True)), Fraction(0))
            for k in range(len(values[0]))
        ]
        row[-1] += Fraction(bias)
        out.append(row)
    return out


def _vertices(constraints: list[Row], lower: Sequence[Fraction], upper: Sequence[Fraction]) -> Iterator[list[Fraction]]:
    d = len(lower)
    faces = []
    for i in range(d):
        unit = [Fraction(int(i == k)) for k in range(d)]
        faces += [[*unit, -lower[i]], [*(-u for u in unit), upper[i]]]
    everything = constraints + faces
    for chosen in itertools.combinations(everything, d):
        point = _solve(chosen)
        if point is not None and all(_at(c, point) >= 0 for c in everything):
            yield point


def _at(row: Row, point: Sequence[Fraction]) -> Fraction:
    return sum((c * x for c, x in zip(row, point, strict=False)), row[-1])


def _solve(rows: Sequence[Row]) -> list[Fraction] | None:
    """The point where all rows are 0, by Gauss-Jordan elimination; None where it is not unique."""
    m = [[*row[:-1], -row[-1]] for row in rows]
    d = len(m)
    for i in range(d):
        pivot = next((r for r in range(i, d) if m[r][i] != 0), None)
        if pivot is None:
            return None
        m[i], m[pivot] = m[pivot], m[i]
        m[i] = [v / m[i][i] for v in m[i]]
        for r in range(d):
            if r != i and m[r][i] != 0:
                m[r] = [a - m[r][i] * b for a, b in zip(m[r], m[i], strict=True)]
    return [row[-1] for row in m]


def tiny_network(seed: int, inputs: int = 2, hidden: Sequence[int] = (3, 2), outputs: int = 2) -> Network:
    """A random fully connected network with float32 weights."""
    generator = torch.Generator().manual_seed(seed)
    steps: list[Linear | ReLU] = []
    sizes = [inputs, *hidden, outputs]
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        weight = torch.randn(b, a, generator=generator)
        steps.append(Linear(weight=weight, bias=0.5 * torch.randn(b, generator=generator), inputs=(len(steps),)))
        if i < len(hidden):
            steps.append(ReLU(inputs=(len(steps),)))
    return Network(tuple(steps))
