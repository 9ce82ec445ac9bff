"""float32-deployed: what the float32 torch program computes always lies inside, however it is run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acert_zoo.bounds import float32_deployed as deployed
from acert_zoo.bounds import ibp
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.preconditions import has_subnormal
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.architectures import CNN
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, AvgPool, Conv, Flatten, Linear, MaxPool, Normalize, ReLU, Sign
from acert_zoo.network.tracing import trace
from tests.support import deployed as programs
from tests.support import rational as exact

LEVEL = "float32-deployed"


def cnn() -> Network:
    torch.manual_seed(0)
    shape = {"input_shape": (3, 12, 12), "num_classes": 5, "mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]}
    return trace(CNN(**shape, convs=[(8, 2), (8, 1)], hidden=32).eval()).detach()


def residual() -> Network:
    torch.manual_seed(1)

    def conv(source: int, width: int, **fields) -> Conv:
        return Conv(
            inputs=(source,), weight=torch.randn(width, 4, 3, 3), bias=torch.randn(width), padding=(1, 1), **fields
        )

    return Network(
        (
            Normalize(inputs=(0,), mean=torch.tensor([0.5]), std=torch.tensor([0.2])),
            Conv(inputs=(1,), weight=torch.randn(4, 3, 3, 3), bias=torch.randn(4)),
            ReLU(inputs=(2,)),
            conv(3, 4),
            Add(inputs=(3, 4)),
            AvgPool(inputs=(5,), kernel_size=(3, 3), stride=(2, 2), padding=(1, 1)),
            MaxPool(inputs=(6,), kernel_size=(2, 2), stride=(1, 1)),
            Flatten(inputs=(7,)),
            Linear(inputs=(8,), weight=torch.randn(5, 64), bias=torch.randn(5)),
        )
    )


def points_of(box: Interval, rng: np.random.Generator, n: int) -> Tensor:
    """float32 points of one image's box: corners, float neighbours of the ends, uniform ones. [n, C, H, W]."""
    low, high = box.lower.numpy(), box.upper.numpy()
    bottom, top = low.astype(np.float32), high.astype(np.float32)
    bottom = np.where(bottom < low, np.nextafter(bottom, np.float32(2)), bottom)  # the float32 numbers inside
    top = np.where(top > high, np.nextafter(top, np.float32(-1)), top)
    found = [bottom, top]
    while len(found) < n:
        corner = np.where(rng.random(low.shape) < 0.5, bottom, top)
        if len(found) % 3 == 0:  # neighbours, one float inside
            corner = np.where(corner == bottom, np.nextafter(bottom, top), np.nextafter(top, bottom))
        elif len(found) % 3 == 1:
            corner = np.clip(rng.uniform(low, high).astype(np.float32), bottom, top)
        found.append(corner)
    points = torch.from_numpy(np.stack(found))
    assert bool(((points.double() >= box.lower) & (points.double() <= box.upper)).all())
    return points


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("build", [cnn, residual])
def test_the_torch_program_stays_inside(build, threads):
    net, rng = build(), np.random.default_rng(threads)
    rigorous = RigorousNetwork(net, LEVEL)
    for eps in (1e-6, 1 / 255):
        image = torch.from_numpy(rng.integers(0, 256, (1, 3, 12, 12)) / 255).float()
        image[0, 0, :4], image[0, 1, :4] = 0.0, 1.0
        intervals = rigorous.intervals(image, eps)
        margins = torch.stack([rigorous.margins(image, torch.tensor([y]), eps)[0] for y in range(5)])
        points = points_of(Interval(intervals[0].lower[0], intervals[0].upper[0]), rng, 128)
        for batch, layout in itertools.product((1, 7, 128), (torch.contiguous_format, torch.channels_last)):
            for part in points[: 14 if batch < 128 else 128].split(batch):
                values = net.run(part.contiguous(memory_format=layout))
                for step, value, interval in zip(("input", *net.steps), values, intervals, strict=False):
                    inside = (value.double() >= interval.lower) & (value.double() <= interval.upper)
                    assert bool(inside.all()), (step, batch, layout)
                logits = values[-1].double()
                for y in range(5):
                    others = [t for t in range(5) if t != y]
                    assert bool((logits[:, [y]] - logits[:, others] >= margins[y]).all())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 5),
    regimes=st.lists(st.sampled_from(["normal", "sparse", "integer", "wide"]), min_size=1, max_size=3),
    pooling=st.sampled_from(["none", "max", "avg"]),
    fused=st.booleans(),
)
def test_any_summation_order_stays_inside(seed, depth, regimes, pooling, fused):
    rng = np.random.default_rng(seed)
    net = exact.random_network(rng, depth, regimes, pooling)
    if any(bool(has_subnormal(t)) for s in net.steps for t in vars(s).values() if isinstance(t, Tensor)):
        net = net.map_tensors(lambda t: torch.where(t.abs() < 2.0**-126, torch.zeros_like(t), t))
    image = exact.random_images(rng, 1)
    eps = float(10 ** rng.uniform(-9, -1))
    rigorous = RigorousNetwork(net, LEVEL)
    intervals = rigorous.intervals(image, eps)
    margins = torch.stack([rigorous.margins(image, torch.tensor([y]), eps)[0] for y in range(net.num_classes)])
    for point in points_of(Interval(intervals[0].lower[0], intervals[0].upper[0]), rng, 6):
        values = programs.run_permuted(net, point, rng, fused)
        for step, value, interval in zip(("input", *net.steps), values, intervals, strict=False):
            got = torch.from_numpy(value).double()
            assert bool(((got >= interval.lower[0]) & (got <= interval.upper[0])).all()), step
        logits = values[-1].astype(np.float64)
        for y in range(net.num_classes):
            assert min(logits[y] - np.delete(logits, y)) >= margins[y].item()


def one_by_one(values: Tensor) -> float:
    """The float32 sum of values [n], added in their order."""
    total = np.float32(0)
    for v in values.numpy():
        total = np.float32(total + v)
    return float(total)


@pytest.mark.parametrize("n", [40, 1000])  # 1000: our own sums are far less deep than those the program may form
def test_sums_that_lose_as_much_as_they_can(monkeypatch, n):
    """1 and n - 1 values just below half an ulp of 1: the program may find 1. The error terms count all n products."""
    x = torch.full((n,), 0.99 * 2.0**-24)
    x[0] = 1.0
    assert one_by_one(x) == 1.0
    image, label = x.view(1, 1, 1, n), torch.zeros(1, dtype=torch.int64)
    total, other = x.double().sum().item(), 1 + 2.0**-23
    assert one_by_one(x) < other < total  # the program decides for class 1, the real-valued network for class 0
    ones, zero = torch.ones(1, n), torch.zeros(1)
    hidden = programs.chain(programs.flatten(), programs.linear(ones, zero), programs.relu(), two_rows())
    head = programs.chain(programs.flatten(), programs.linear(torch.cat([ones, 0 * ones]), [0.0, other]))

    def sound() -> tuple[bool, bool]:
        lower = RigorousNetwork(hidden, LEVEL).intervals(image, 0.0)[2].lower.item()
        return lower <= one_by_one(x), not RigorousNetwork(head, LEVEL).proves(image, label, 0.0).any()

    assert sound() == (True, True)
    assert RigorousNetwork(head).proves(image, label, 0.0).all()
    terms, error = deployed.deployed_terms, deployed.logit_error
    monkeypatch.setattr(deployed, "deployed_terms", lambda n, depth, c, **_: terms(9 * n // 10, depth, c))
    monkeypatch.setattr(deployed, "logit_error", lambda h, label, n: error(h, label, n // 4))
    assert sound() == (False, False)


def two_rows() -> Linear:
    return programs.linear([[1.0], [0.0]], [0.0, 0.0])


@pytest.mark.parametrize("family", [programs.large_bias, programs.cancelling_weights, programs.nearly_equal_rows])
def test_networks_that_amplify_rounding_are_never_certified_wrongly(family):
    """... by the level that speaks about the program; real-sound speaks of real arithmetic, and differs from it."""
    planted = list(family())
    assert programs.wrongly_certified(planted) == 0
    assert programs.wrongly_certified(planted, "real-sound") > 0


def test_plain_float32_bounds_certify_a_planted_network_wrongly():
    """What the rigour is for: h = (x + 2^23) - 2^23 rounds x = 0.6 up to 1, so plain bounds see 1 - 0.7 > 0."""
    lift, back = programs.linear([[1.0]], [2.0**23]), programs.linear([[1.0]], [-(2.0**23)])
    head = programs.linear([[1.0], [0.0]], [-0.7, 0.0])
    net = programs.chain(programs.flatten(), lift, programs.relu(), back, programs.relu(), head)
    image, label = torch.full((1, 1, 1, 1), 0.6), torch.zeros(1, dtype=torch.int64)
    assert ibp.robust_margin(net, image, label, 0.01).item() > 0.29
    assert exact.margin(net, image[0], 0, exact.Fraction(1, 100)) < -0.09  # the truth
    assert float(net.to(torch.float64)(image.double())[0, 0]) < 0
    for level in ("real-sound", LEVEL):
        assert not RigorousNetwork(net, level).proves(image, label, 0.01).any()


def test_the_level_proves_what_is_not_close():
    """No bound is right by refusing everything: ordinary margins are proved, at nearly the radius of real-sound."""
    net, rng = cnn(), np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (16, 3, 12, 12)) / 255).float()
    labels = net(images).argmax(1)
    real, program = (RigorousNetwork(net, level).margins(images, labels, 1e-5) for level in ("real-sound", LEVEL))
    assert bool((program < real).all())
    assert int((program > 0).sum()) >= 12
    assert float((real - program).max()) < 1e-3


def test_levels_nest_and_the_constant_scales_the_float64_terms_only():
    net, rng = cnn(), np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (4, 3, 12, 12)) / 255).float()
    labels = torch.arange(4)
    order = [
        RigorousNetwork(net, level, constant=c).margins(images, labels, 1e-4)
        for level, c in (("real-sound", 1), ("real-sound", 25), (LEVEL, 1), (LEVEL, 25))
    ]
    for wide, narrow in itertools.pairwise(order):
        assert bool((narrow < wide).all())
    assert float((order[2] - order[3]).max()) < 1e-7


def test_the_overflow_guard_counts_the_sum_before_pooling_divides_it():
    """Each value fits float32, their mean too, but not the sum that the program forms first."""
    net = programs.chain(
        programs.flatten(),
        programs.linear(torch.full((4, 1), 2.0**125), torch.zeros(4)),
        programs.linear(torch.eye(4), torch.zeros(4)),
        programs.linear(torch.ones(2, 4) * 2.0**-125, [1.0, 0.0]),
    )
    image = torch.ones(1, 1, 1, 1)
    assert RigorousNetwork(net, LEVEL).proves(image, torch.tensor([0]), 0.0).all()
    grid = Network(
        (
            Conv(inputs=(0,), weight=torch.full((1, 1, 1, 1), 2.0**125), bias=torch.zeros(1)),
            AvgPool(inputs=(1,), kernel_size=(2, 2), stride=(2, 2)),
            Flatten(inputs=(2,)),
            Linear(inputs=(3,), weight=torch.ones(2, 1) * 2.0**-125, bias=torch.tensor([1.0, 0.0])),
        )
    )
    ones = torch.ones(1, 1, 2, 2)
    assert RigorousNetwork(grid, "real-sound").proves(ones, torch.tensor([0]), 0.0).all()
    assert not RigorousNetwork(grid, LEVEL).proves(ones, torch.tensor([0]), 0.0).any()


def test_the_sign_of_what_a_program_may_flush():
    """A subnormal argument, read as zero, has sign 0, which must lie inside; at real-sound its sign is 1."""
    head = Linear(inputs=(2,), weight=torch.ones(2, 1), bias=torch.zeros(2))
    net = Network((Flatten(inputs=(0,)), Sign(inputs=(1,)), head))
    for pixel, real, lowest in ((2.0**-130, 1.0, -1.0), (2.0**-120, 1.0, 1.0)):
        x = torch.full((1, 1, 1, 1), pixel)
        assert RigorousNetwork(net).intervals(x, 0.0)[2].lower.item() == real
        out = RigorousNetwork(net, "float32-deployed").intervals(x, 0.0)[2]
        assert out.lower.item() == lowest
        assert out.upper.item() == 1.0
