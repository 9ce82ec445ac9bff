"""The rules by which rounding-sound boxes pass through a step: one table for each level that proves something.

Why they hold is said where the arithmetic is: `real_sound.py`, `float32_deployed.py`, `activations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from acert_zoo.bounds.activations import sigmoid_box, tanh_box
from acert_zoo.bounds.directed_rounding import down, up
from acert_zoo.bounds.float32_deployed import DeployedMarginRows, Float32Deployed
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.margin_rows import MarginRows
from acert_zoo.bounds.real_sound import RealSound, per_channel
from acert_zoo.network.layers import (
    Add,
    AvgPool,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Normalize,
    Permute,
    ReLU,
    Reshape,
    Sigmoid,
    Sign,
    Step,
    Tanh,
)
from acert_zoo.network.rule_table import RuleTable
from acert_zoo.rounding import RoundingLevel, proved_level


class Use(NamedTuple):
    """How one step of a propagation is to be evaluated."""

    alive: Tensor  # bool [N], cleared where an overflow guard fails: then nothing is proved, whatever intervals say
    nonnegative: bool = False  # every input is known to have lo >= 0
    overwrite: bool = False  # nobody else reads the inputs


Rule = Callable[[Sequence[Interval], Use], Interval]  # boxes of a step's inputs -> box of its output


def _affine(arithmetic: RealSound, step: Step) -> Rule:
    prepared = arithmetic.prepare(step)
    return lambda boxes, use: arithmetic.affine(prepared, boxes[0], use.alive, nonnegative=use.nonnegative)


def _batchnorm(arithmetic: RealSound, step: BatchNorm) -> Rule:
    """gamma (x - mean) / sqrt(var + epsilon) + beta: x - mean as in Normalize, then the affine rule."""
    prepared = arithmetic.prepare(step)

    def rule(boxes: Sequence[Interval], use: Use) -> Interval:
        x, mean = boxes[0], per_channel(step.mean, boxes[0].lower)
        return arithmetic.affine(prepared, Interval(down(x.lower - mean), up(x.upper - mean)), use.alive)

    return rule


def _normalize(arithmetic: RealSound, step: Normalize) -> Rule:
    return lambda boxes, use: arithmetic.normalize(step, boxes[0], use.alive)


def _add(arithmetic: RealSound, step: Step) -> Rule:
    return lambda boxes, use: arithmetic.add(boxes[0], boxes[1], use.alive)


def _relu(arithmetic: RealSound, step: Step) -> Rule:
    def rule(boxes: Sequence[Interval], use: Use) -> Interval:
        (x,) = boxes
        if use.overwrite:
            return Interval(x.lower.relu_(), x.upper.relu_())
        return Interval(x.lower.relu(), x.upper.relu())

    return rule


def _sigmoid(arithmetic: RealSound, step: Step) -> Rule:
    return lambda boxes, use: arithmetic.function(sigmoid_box, boxes[0], use.alive)


def _tanh(arithmetic: RealSound, step: Step) -> Rule:
    return lambda boxes, use: arithmetic.function(tanh_box, boxes[0], use.alive)


def _sign(arithmetic: RealSound, step: Step) -> Rule:
    return lambda boxes, use: arithmetic.sign(boxes[0], use.alive)


def _selection(arithmetic: RealSound, step: Step) -> Rule:
    """Every output is an entry of the inputs, or 0: monotone, and free of rounding."""
    return lambda boxes, use: Interval(step(*(v.lower for v in boxes)), step(*(v.upper for v in boxes)))


Prepare = Callable[[RealSound, Any], Rule]  # (arithmetic of the level, step with float64 tensors) -> rule

REAL_SOUND: RuleTable[Prepare] = RuleTable(
    RoundingLevel.REAL_SOUND,
    {
        Normalize: _normalize,
        Linear: _affine,
        Conv: _affine,
        AvgPool: _affine,
        BatchNorm: _batchnorm,
        Add: _add,
        ReLU: _relu,
        Sigmoid: _sigmoid,
        Tanh: _tanh,
        Sign: _sign,
        **dict.fromkeys((Flatten, Reshape, Permute, Concat, MaxPool), _selection),
    },
    {},
)
FLOAT32_DEPLOYED = REAL_SOUND.but(
    RoundingLevel.FLOAT32_DEPLOYED,
    {},
    {BatchNorm: "how a program evaluates it is not fixed; use a network with BatchNorm folded, or real-sound"},
)


@dataclass(frozen=True)
class Level:
    """How bounds of one level are computed."""

    arithmetic: type[RealSound]
    rules: RuleTable[Prepare]
    margin_rows: type[MarginRows]


LEVELS = {
    RoundingLevel.REAL_SOUND: Level(RealSound, REAL_SOUND, MarginRows),
    RoundingLevel.FLOAT32_DEPLOYED: Level(Float32Deployed, FLOAT32_DEPLOYED, DeployedMarginRows),
}


def level_of(name: str) -> Level:
    """The level called `name`.

    Raises:
        UnknownNameError, InvalidInputError: see `acert_zoo.rounding.proved_level`.
    """
    return LEVELS[proved_level(name)]
