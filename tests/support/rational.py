"""Exact rational interval propagation: the oracle that rounding-sound bounds are held against.

Values are integers over one common denominator (numpy object arrays), so nothing here rounds. Linear steps are read off
as dense matrices by applying them to unit vectors, which is exact.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import (
    Add,
    Affine,
    AvgPool,
    BatchNorm,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Normalize,
    ReLU,
    Step,
)

_UNIT = 1 << 1074  # every finite float64 is an integer over 2^1074


def integers(t: Tensor) -> np.ndarray:
    """A finite float tensor, flattened, as integers over 2^1074."""
    ratios = (v.as_integer_ratio() for v in t.detach().double().flatten().tolist())
    return np.array([p * (_UNIT // q) for p, q in ratios], dtype=object)


@dataclass(frozen=True)
class Box:
    """Exact interval of one sample: integers `lower`, `upper` over `den`, with the shape they stand for."""

    lower: np.ndarray
    upper: np.ndarray
    den: int
    shape: tuple[int, ...]

    def over(self, factor: int) -> Box:
        return Box(self.lower * factor, self.upper * factor, self.den * factor, self.shape)

    def reduced(self) -> Box:
        g = math.gcd(self.den, *self.lower, *self.upper)
        return Box(self.lower // g, self.upper // g, self.den // g, self.shape)

    def contained(self, lower: Tensor, upper: Tensor) -> bool:
        """Whether [lower, upper] (float64, infinite ends allowed) holds this box."""
        low, high = lower.flatten().tolist(), upper.flatten().tolist()
        return all(_le(a, v, self.den) for a, v in zip(low, self.lower, strict=True)) and all(
            _le(-b, -v, self.den) for b, v in zip(high, self.upper, strict=True)
        )


def _le(a: float, numerator: int, den: int) -> bool:
    """Whether a <= numerator / den; False for NaN, so NaN never counts as an enclosure."""
    if math.isnan(a) or math.isinf(a):
        return a == -math.inf
    p, q = a.as_integer_ratio()
    return p * den <= numerator * q


def box_of(x: Interval, index: int) -> Box:
    """The exact box of sample `index` of a float64 interval with finite ends."""
    lower, upper = x.lower[index], x.upper[index]
    return Box(integers(lower), integers(upper), _UNIT, tuple(lower.shape)).reduced()


def input_box(image: Tensor, eps: Fraction) -> Box:
    """B(x, eps) cut with [0, 1]^d, exactly; `image` is one float32 image [C, H, W]."""
    den = _UNIT * eps.denominator
    pixels = integers(image) * eps.denominator
    radius = eps.numerator * _UNIT
    lower = np.array([max(0, v - radius) for v in pixels], dtype=object)
    upper = np.array([min(den, v + radius) for v in pixels], dtype=object)
    return Box(lower, upper, den, tuple(image.shape)).reduced()


def matrix(step: Affine | AvgPool, shape: Sequence[int]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """(W, b, output shape) of a linear step on one sample: float64 [outputs, inputs], [outputs]; AvgPool: sums."""
    inputs = math.prod(shape)
    basis = torch.eye(inputs, dtype=torch.float64).reshape(inputs, *shape)
    if isinstance(step, AvgPool):
        columns = F.avg_pool2d(basis, step.kernel_size, step.stride, step.padding, divisor_override=1)
        bias = torch.zeros_like(columns[0])
    else:
        columns = step.map(basis, step.weight.double())
        bias = step.bias.double().view(-1, *(1,) * (columns.dim() - 2)).expand(columns[0].shape)
    return columns.flatten(1).T.contiguous(), bias.flatten(), tuple(columns.shape[1:])


def linear_image(weight: np.ndarray, x: Box) -> tuple[np.ndarray, np.ndarray]:
    """Exact smallest and largest W h over the box; the numbers are over 2^1074 x.den."""
    low, high = [], []
    for row in weight:
        a = b = 0
        for w, lo, hi in zip(row, x.lower, x.upper, strict=True):
            if w > 0:
                a, b = a + w * lo, b + w * hi
            elif w < 0:
                a, b = a + w * hi, b + w * lo
        low.append(a)
        high.append(b)
    return np.array(low, dtype=object), np.array(high, dtype=object)


def image_of(step: Step, *inputs: Box) -> Box:
    """The exact interval image of a step (BatchNorm: to 200 binary digits, its scale being irrational)."""
    x = inputs[0]
    if isinstance(step, (Affine, AvgPool)):
        weight, bias, shape = matrix(step, x.shape)
        rows = np.stack([integers(r) for r in weight])
        low, high = linear_image(rows, x)
        shift = integers(bias) * x.den
        den = _UNIT * x.den
        if isinstance(step, AvgPool):
            den *= step.kernel_size[0] * step.kernel_size[1]
        return Box(low + shift, high + shift, den, shape).reduced()
    if isinstance(step, (Normalize, BatchNorm)):
        return _per_channel(step, x)
    if isinstance(step, ReLU):
        return Box(np.maximum(x.lower, 0), np.maximum(x.upper, 0), x.den, x.shape)
    if isinstance(step, Add):
        y = inputs[1].over(x.den)
        x = x.over(inputs[1].den)
        return Box(x.lower + y.lower, x.upper + y.upper, x.den, x.shape).reduced()
    if isinstance(step, MaxPool):
        return _max_pool(step, x)
    return _rearranged(step, *inputs)


def _per_channel(step: Normalize | BatchNorm, x: Box) -> Box:
    channels, inner = x.shape[0], math.prod(x.shape[1:])
    if isinstance(step, Normalize):
        scales = [1 / Fraction(s) for s in step.std.double().expand(channels).tolist()]
        shifts = [-Fraction(m) * s for m, s in zip(step.mean.double().expand(channels).tolist(), scales, strict=True)]
    else:
        scales, shifts = [], []
        for g, b, m, v in zip(
            *(t.double().tolist() for t in (step.gamma, step.beta, step.mean, step.var)), strict=True
        ):
            total = Fraction(v) + Fraction(step.epsilon)
            root = Fraction(math.isqrt((total.numerator << 2400) // total.denominator), 1 << 1200)
            scales.append(Fraction(g) / root)
            shifts.append(Fraction(b) - Fraction(m) * Fraction(g) / root)
    den = math.lcm(*(f.denominator for f in (*scales, *shifts)))
    a = np.repeat(np.array([int(s * den) for s in scales], dtype=object), inner)
    t = np.repeat(np.array([int(s * den) for s in shifts], dtype=object), inner)
    ends = np.stack([a * x.lower + t * x.den, a * x.upper + t * x.den])
    return Box(ends.min(0), ends.max(0), den * x.den, x.shape).reduced()


def _max_pool(step: MaxPool, x: Box) -> Box:
    c, h, w = x.shape
    (kh, kw), (sh, sw), (ph, pw) = step.kernel_size, step.stride, step.padding
    rows, cols = (h + 2 * ph - kh) // sh + 1, (w + 2 * pw - kw) // sw + 1

    def pool(v: np.ndarray) -> np.ndarray:
        v = v.reshape(c, h, w)
        windows = (
            v[k, max(0, i * sh - ph) : i * sh - ph + kh, max(0, j * sw - pw) : j * sw - pw + kw]
            for k in range(c)
            for i in range(rows)
            for j in range(cols)
        )
        return np.array([window.max() for window in windows], dtype=object)

    return Box(pool(x.lower), pool(x.upper), x.den, (c, rows, cols))


def _rearranged(step: Step, *inputs: Box) -> Box:
    """Flatten, Reshape, Permute, Concat: the step moves indices."""
    den = math.prod(b.den for b in inputs)
    inputs = tuple(b.over(den // b.den) for b in inputs)
    numbers, start = [], 0
    for b in inputs:
        size = math.prod(b.shape)
        numbers.append(torch.arange(start, start + size).reshape(1, *b.shape))
        start += size
    moved = step(*numbers)[0]
    order = moved.flatten().numpy()
    lower, upper = (np.concatenate([getattr(b, end) for b in inputs]) for end in ("lower", "upper"))
    return Box(lower[order], upper[order], den, tuple(moved.shape)).reduced()


def propagate(network: Network, box: Box) -> list[Box]:
    """Exact interval bounds of every value but the logits."""
    values = [box]
    for step in network.steps[:-1]:
        values.append(image_of(step, *(values[i] for i in step.inputs)))
    return values


def smallest_margin(network: Network, hidden: Box, label: int) -> Fraction:
    """min over t != label of the exact lower bound of f_label - f_t over the hidden box."""
    weight = np.stack([integers(r) for r in network.head.weight])
    bias = integers(network.head.bias)
    others = [t for t in range(len(weight)) if t != label]
    low, _ = linear_image(np.stack([weight[label] - weight[t] for t in others]), hidden)
    shift = np.array([bias[label] - bias[t] for t in others], dtype=object) * hidden.den
    return Fraction(int(min(low + shift)), _UNIT * hidden.den)


def margin(network: Network, image: Tensor, label: int, eps: Fraction) -> Fraction:
    """The exact IBP margin R(x, eps) for the label, over the exact box."""
    hidden = propagate(network, input_box(image, eps))[network.head.inputs[0]]
    return smallest_margin(network, hidden, label)


# --- drawn networks -------------------------------------------------------------------------------------------------


def weights(rng: np.random.Generator, shape: tuple[int, ...], regime: str) -> Tensor:
    """float32 numbers of one regime: what a trained layer holds, or what breaks careless bounds."""
    sign = rng.choice([-1.0, 1.0], shape)
    if regime == "normal":
        w = rng.normal(size=shape)
    elif regime == "wide":  # 2^-149 to 1e6
        w = sign * np.exp2(rng.uniform(-149, 20, shape))
    elif regime == "subnormal":
        w = sign * rng.integers(0, 2**10, shape) * 2.0**-149
    elif regime == "huge":  # mostly ordinary, a few near the largest float32
        w = np.where(rng.random(shape) < 0.1, sign * rng.uniform(2.9e38, 3.4e38, shape), rng.normal(size=shape))
    elif regime == "sparse":
        w = rng.normal(size=shape) * (rng.random(shape) < 0.3)
    elif regime == "integer":  # sums cancel exactly
        w = rng.integers(-3, 4, shape).astype(float)
    else:
        raise ValueError(regime)
    return torch.from_numpy(np.asarray(w)).float()


REGIMES = ("normal", "wide", "subnormal", "huge", "sparse", "integer")


def random_network(rng: np.random.Generator, depth: int, regimes: Sequence[str], pooling: str = "none") -> Network:
    """Normalize, then `depth` affine layers with ReLUs in between (convolutions first), on images [2, 3, 3]."""
    steps: list[Step] = []

    def add(kind: type[Step], *inputs: int, **fields: Any) -> int:
        step = kind(inputs=inputs or (len(steps),), name=f"{kind.__name__}{len(steps)}", **fields)
        if isinstance(step, Affine) and rng.random() < 0.2:
            step = _with_cancelling_bias(steps, step)
        steps.append(step)
        return len(steps)

    mean, std = rng.uniform(0, 1, 2), rng.uniform(0.2, 1, 2)
    add(Normalize, mean=torch.from_numpy(mean).float(), std=torch.from_numpy(std).float())
    shape: tuple[int, ...] = (2, 3, 3)
    convs = int(rng.integers(0, min(3, depth)))
    for i in range(depth - 1):
        regime = regimes[i % len(regimes)]
        if i < convs:
            width, kernel = 2 * int(rng.integers(1, 3)), int(rng.integers(1, 4))
            groups = 2 if shape[0] % 2 == 0 and rng.random() < 0.3 else 1
            fields = {
                "stride": (int(rng.integers(1, 3)),) * 2,
                "padding": (1, 1) if kernel > 1 else (0, 0),
                "dilation": (2, 2) if kernel == 2 and shape[1] >= 3 else (1, 1),
                "groups": groups,
            }
            w = weights(rng, (width, shape[0] // groups, kernel, kernel), regime)
            add(Conv, weight=w, bias=weights(rng, (width,), regime), **fields)
        else:
            if len(shape) > 1:
                add(Flatten)
            n, width = math.prod(shape), int(rng.integers(1, 6))
            add(Linear, weight=weights(rng, (width, n), regime), bias=weights(rng, (width,), regime))
        shape = tuple(_shape_after(steps))
        if len(shape) == 3 and min(shape[1:]) >= 2 and pooling != "none":
            add(MaxPool if pooling == "max" else AvgPool, kernel_size=(2, 2), stride=(1, 1), padding=(1, 0))
            shape = tuple(_shape_after(steps))
        if rng.random() < 0.2:
            add(Add, len(steps), len(steps))
        add(ReLU)
    if len(shape) > 1:
        add(Flatten)
    n, classes = math.prod(shape), int(rng.integers(2, 4))
    regime = regimes[(depth - 1) % len(regimes)]
    w, b = weights(rng, (classes, n), regime), weights(rng, (classes,), regime)
    if rng.random() < 0.3:  # nearly equal rows: the margin is a small difference of large logits
        w[1], b[1] = torch.nextafter(w[0], torch.tensor(torch.inf)).nan_to_num(posinf=3.4e38), b[0]
    add(Linear, weight=w, bias=b)
    return Network(tuple(steps))


def _with_cancelling_bias(steps: list[Step], step: Affine) -> Affine:
    """The step with biases that cancel its products where every pixel is 1/2."""
    values = [torch.full((1, 2, 3, 3), 0.5)]
    for earlier in steps:
        values.append(earlier(*(values[i] for i in earlier.inputs)))
    products = step.map(values[step.inputs[0]], step.weight)
    bias = -products.flatten(2).mean(2)[0] if products.dim() > 2 else -products[0]
    return dataclasses.replace(step, bias=bias.nan_to_num(nan=0.0))


def _shape_after(steps: list[Step]) -> torch.Size:
    x = torch.zeros(1, 2, 3, 3)
    values = [x]
    for step in steps:
        values.append(step(*(values[i] for i in step.inputs)))
    return values[-1].shape[1:]


def random_images(rng: np.random.Generator, n: int) -> Tensor:
    """Pixels 0, 1 and k/255, and a few other float32 (subnormals too)."""
    pixels = rng.integers(0, 256, (n, 2, 3, 3)) / 255
    kind = rng.random(pixels.shape)
    pixels = np.where(kind < 0.15, 0.0, np.where(kind < 0.3, 1.0, pixels))
    pixels = np.where(kind > 0.95, np.exp2(rng.uniform(-149, 0, pixels.shape)), pixels)
    return torch.from_numpy(pixels).float()
