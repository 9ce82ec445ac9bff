"""Sums in blocks: the bounds hold in whatever order a matrix library adds, and however the blocks come out."""

from __future__ import annotations

import contextlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acert_zoo.bounds import blocked_sums
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import RealSound
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Affine, Conv, Flatten, Linear, ReLU
from tests.support import cases as cases
from tests.support import rational as exact
from tests.support.blas import ORDERS, HostileBlas

# Channels and kernel: remainders of n by a block, kernels of one place, kernels larger than a block.
SHAPES = [(1, 3, 3), (16, 3, 3), (31, 3, 3), (32, 3, 3), (33, 3, 3), (50, 3, 3), (47, 2, 3), (16, 5, 5), (12, 5, 5)]
SHAPES += [(288, 1, 1), (289, 1, 1), (400, 1, 1), (3, 13, 12), (2, 12, 12)]


def encloses(step: Affine, box: Interval, nonnegative: bool = False) -> bool:
    """Whether the rule's interval holds the exact image, for every sample."""
    alive, prepared = torch.ones(len(box.lower)).bool(), RealSound().prepare(cases.in_float64(step))
    out = RealSound().affine(prepared, box, alive, nonnegative=nonnegative)
    images: list[exact.Box] = []  # computed once where all samples are the same
    for i in range(len(box.lower)):
        again = i > 0 and bool((box.lower[i] == box.lower[0]).all() and (box.upper[i] == box.upper[0]).all())
        images.append(images[0] if again else exact.image_of(step, exact.box_of(box, i)))
    return all(image.contained(out.lower[i], out.upper[i]) for i, image in enumerate(images))


def long_tail(*shape: int) -> torch.Tensor:
    """Values [N, C, ...]: 64 of 1/64, then all just below half an ulp of 1, lost if they are added one by one."""
    values = torch.full(shape, 0.99 * 2.0**-53)
    values.flatten(1)[:, :64] = 1 / 64
    return values


def blas(order: str) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if order == "real" else HostileBlas(order)


@pytest.mark.parametrize("order", ["real", "forward"])
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("shape", [(1024,), (1024, 1, 1), (112, 3, 3)])
def test_a_long_tail_of_small_products(shape, count, outputs, order):
    """One row of weights is a matrix-vector product, whose kernels add to what is there already one by one."""
    x = long_tail(count, *shape).double()
    fields = {"inputs": (0,), "weight": torch.ones(outputs, *shape), "bias": torch.zeros(outputs)}
    with blas(order):
        assert encloses(Linear(**fields) if len(shape) == 1 else Conv(**fields), Interval(x, x.clone()))


@pytest.mark.parametrize("order", ["real", "forward"])
@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("shape", [(1024, 1, 1), (112, 3, 3)])
def test_a_long_tail_in_a_network(shape, count, outputs, order):
    """The same behind a ReLU, where the box is known to be nonnegative; the margin is minus the sum."""
    net = Network(
        (
            ReLU(inputs=(0,)),
            Conv(inputs=(1,), weight=-torch.ones(outputs, *shape), bias=torch.zeros(outputs)),
            Flatten(inputs=(2,)),
            Linear(inputs=(3,), weight=torch.eye(outputs)[:1].repeat(2, 1) * torch.ones(2, 1), bias=torch.zeros(2)),
        )
    )
    net.head.weight[1] = 0
    x, y = long_tail(count, *shape), torch.zeros(count, dtype=torch.int64)
    rigorous = RigorousNetwork(net)
    with blas(order):
        margins = rigorous.margins(x, y, 0.0)
    truth = exact.margin(net, x[0], 0, Fraction(0))
    assert all(Fraction(m) <= truth for m in margins.tolist())


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from(SHAPES),
    stride=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    regime=st.sampled_from(exact.REGIMES),
    order=st.sampled_from([*ORDERS, "real"]),
    count=st.sampled_from([1, 1, 3]),
    behind_relu=st.booleans(),
)
def test_convolutions_in_any_order(seed, shape, stride, regime, order, count, behind_relu):
    """Every remainder of n by the block, kernels larger than a block, strides, padding, several images."""
    rng = np.random.default_rng(seed)
    channels, *kernel = shape
    weight = exact.weights(rng, (2, channels, *kernel), regime)
    bias = exact.weights(rng, (2,), regime)
    padding = (int(rng.integers(0, kernel[0])), int(rng.integers(0, kernel[1])))
    dilation = (2, 1) if kernel[0] in (2, 3) and rng.random() < 0.3 else (1, 1)
    size = [max(1, dilation[i] * (kernel[i] - 1) + 1 - padding[i]) for i in (0, 1)]
    step = Conv(inputs=(0,), weight=weight, bias=bias, padding=padding, stride=stride, dilation=dilation)
    x = torch.from_numpy(rng.normal(size=(count, channels, *size)) * (rng.random((count, channels, *size)) < 0.7))
    radius = float(rng.choice([0.0, 1e-12, 0.1]))
    box = Interval(x - radius, x + radius)
    box = Interval(box.lower.clamp(min=0), box.upper.clamp(min=0)) if behind_relu else box
    with blas(order):
        assert encloses(step, box, nonnegative=behind_relu)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([1, 143, 144, 145, 287, 288, 289, 431, 432, 433, 720]),
    regime=st.sampled_from(exact.REGIMES),
    order=st.sampled_from([*ORDERS, "real"]),
    count=st.integers(1, 6),
    kept=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_linear_layers_in_any_order(seed, n, regime, order, count, kept):
    """Both ways of summing (few images, many), with any share of inputs that are exact zeros, none left included."""
    rng = np.random.default_rng(seed)
    step = Linear(inputs=(0,), weight=exact.weights(rng, (3, n), regime), bias=exact.weights(rng, (3,), regime))
    x = torch.from_numpy(rng.normal(size=(count, n)) * (rng.random(n) < kept))
    radius = torch.from_numpy((rng.random(n) < kept) * float(rng.choice([0.0, 1e-12, 0.1])))
    with blas(order):
        assert encloses(step, Interval(x - radius, x + radius))


def test_the_hostile_library_is_used():
    """... and loses what a sum of blocks keeps."""
    with HostileBlas("forward") as mode:
        total = long_tail(1, 8192).double() @ torch.ones(8192, 1, dtype=torch.float64)
    assert mode.calls == 1
    assert total.item() == 1.0
    apply, _, depth = blocked_sums.blocked_linear(torch.ones(1, 8192, dtype=torch.float64), torch.zeros(1).double())
    assert apply(long_tail(1, 8192).double()).item() > 1.0
    assert depth == blocked_sums.BLOCK + -(-8192 // blocked_sums.BLOCK)
