"""Rounding-sound bounds against exact rational arithmetic: hand-checkable cases, drawn networks, real networks.

Also tested here: bounds/rigorous_rules.py.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import acert_zoo
from acert_zoo.bounds import ibp
from acert_zoo.bounds.directed_rounding import U64
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.network.architectures import CNN
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, Affine, AvgPool, BatchNorm, Concat, Conv, Flatten, Linear, Permute, ReLU
from acert_zoo.network.tracing import trace
from tests.support import cases as cases
from tests.support import rational as exact

LABEL = torch.zeros(1, dtype=torch.int64)
ONE_STEP = {"inputs": (0,)}


def two_logits(weight: float = 1.0, threshold: float = 0.5) -> Network:
    """One pixel x; f_0 - f_1 = weight (x - threshold) for weight > 0."""
    head = torch.tensor([[weight], [0.0]])
    return Network(
        (
            Flatten(inputs=(0,)),
            Linear(inputs=(1,), weight=torch.tensor([[1.0]]), bias=torch.tensor([-threshold])),
            Linear(inputs=(2,), weight=head, bias=torch.zeros(2)),
        )
    )


def pixel(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_a_margin_one_can_compute_by_hand():
    net = RigorousNetwork(two_logits())
    for eps, expected in ((0.0, 0.25), (0.125, 0.125), (0.25, 0.0), (0.5, -0.25), (7.0, -0.5)):  # the cube ends at 0
        margin = net.margins(pixel(0.75), LABEL, eps).item()
        assert expected - 1e-14 < margin < expected
    assert net.proves(pixel(0.75), LABEL, 0.249999).tolist() == [True]
    assert net.proves(pixel(0.75), LABEL, 0.25).tolist() == [False]  # a margin of exactly 0 is not proved
    assert net.proves(pixel(0.75), LABEL + 1, 0.0).tolist() == [False]


def test_one_eps_for_each_image_and_an_empty_batch():
    net = RigorousNetwork(two_logits())
    eps = torch.tensor([0.1, 0.4], dtype=torch.float64)
    assert net.proves(pixel(0.75).expand(2, 1, 1, 1), LABEL.expand(2), eps).tolist() == [True, False]
    assert net.margins(torch.empty(0, 1, 1, 1), torch.empty(0, dtype=torch.int64), 0.1).shape == (0,)
    assert net.margins(torch.empty(0, 1, 1, 1), torch.empty(0, dtype=torch.int64), 0.1).dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "labels", "eps", "message"),
    [
        (pixel(1.5), LABEL, 0.1, "pixels"),
        (pixel(-1e-3), LABEL, 0.1, "pixels"),
        (pixel(math.nan), LABEL, 0.1, "pixels"),
        (pixel(0.5).double(), LABEL, 0.1, "float32"),
        (pixel(0.5), LABEL + 2, 0.1, "labels"),
        (pixel(0.5), LABEL - 1, 0.1, "labels"),
        (pixel(0.5), LABEL.int(), 0.1, "int64"),
        (pixel(0.5), LABEL.expand(2), 0.1, "labels"),
        (pixel(0.5), LABEL, -1e-9, "eps"),
        (pixel(0.5), LABEL, math.nan, "eps"),
        (pixel(0.5), LABEL, torch.tensor([0.1, 0.1]), "eps"),
    ],
)
def test_bad_input_is_refused(images, labels, eps, message):
    with pytest.raises(InvalidInputError, match=message):
        RigorousNetwork(two_logits()).margins(images, labels, eps)


def test_unproved_levels_are_refused():
    with pytest.raises(InvalidInputError, match="proves nothing"):
        RigorousNetwork(two_logits(), "float32")
    with pytest.raises(UnknownNameError, match="real-sound"):
        RigorousNetwork(two_logits(), "sound")


def test_the_snapshot_does_not_follow_the_live_weights():
    live = two_logits()
    net = RigorousNetwork(live)
    before = net.margins(pixel(0.75), LABEL, 0.1)
    live.steps[1].weight.fill_(-1.0)
    assert torch.equal(net.margins(pixel(0.75), LABEL, 0.1), before)


def test_overflow_proves_nothing():
    for level in ("real-sound", "float32-deployed"):
        assert RigorousNetwork(cases.overflowing_network(), level).margins(pixel(1.0), LABEL, 0.1).item() == -math.inf


def affine_bounds_hold(net: Network, rigorous: RigorousNetwork, x: torch.Tensor, eps: float) -> None:
    """Every step on its own rigorous input: the exact image lies inside, and an affine step widens by the law's 6k."""
    intervals = rigorous.intervals(x, eps)
    for step, out in zip(net.steps, intervals[1:], strict=False):
        inputs = [intervals[i] for i in step.inputs]
        for index in range(len(x)):
            if not all(v.lower[index].isfinite().all() and v.upper[index].isfinite().all() for v in inputs):
                continue
            image = exact.image_of(step, *(exact.box_of(v, index) for v in inputs))
            assert image.contained(out.lower[index], out.upper[index]), step.name
            if isinstance(step, (Affine, AvgPool)) and bool(out.lower[index].isfinite().all()):
                within_the_law(step, inputs[0], out, index, image)


def within_the_law(step, x, out, index: int, image: exact.Box) -> None:
    weight, bias, _ = exact.matrix(step, x.lower.shape[1:])
    n = step.inner_length
    divisor = n if isinstance(step, AvgPool) else 1
    largest = torch.maximum(x.lower[index].abs(), x.upper[index].abs()).flatten()  # |m| + r
    k = Fraction((2 * n + 16) * U64) / (1 - Fraction((2 * n + 16) * U64))
    absolute = exact.linear_image(
        np.stack([exact.integers(row) for row in weight.abs()]), exact.Box(*(exact.integers(largest),) * 2, 1, ())
    )[0]
    # The absolute term counts the whole kernel, also where part of it lies on the padding.
    kernel = step.weight.double().abs().flatten(1).sum(1) if isinstance(step, Affine) else torch.full((1,), float(n))
    sums = kernel.repeat_interleave(len(weight) // len(kernel)).tolist()
    for i, (low, high) in enumerate(zip(out.lower[index].flatten(), out.upper[index].flatten(), strict=True)):
        scale = Fraction(int(absolute[i]), 1 << 2148) / divisor
        allowed = 6 * k * (scale + abs(Fraction(bias[i].item()))) + Fraction(sums[i]) / divisor * Fraction(1, 2**798)
        assert Fraction(int(image.lower[i]), image.den) - Fraction(low.item()) <= allowed, step.name
        assert Fraction(high.item()) - Fraction(int(image.upper[i]), image.den) <= allowed, step.name


@settings(max_examples=700)  # 3 images each: 2,100 drawn cases
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 6),
    regimes=st.lists(st.sampled_from(exact.REGIMES), min_size=1, max_size=3),
    pooling=st.sampled_from(["none", "none", "max", "avg"]),
    eps=st.one_of(
        st.floats(1e-9, 1.0), st.integers(1, 255).map(lambda k: k / 255), st.integers(0, 30).map(lambda k: 2.0**-k)
    ),
    constant=st.sampled_from([1, 1, 5, 25]),
)
def test_no_bound_lies_inside_the_exact_one(seed, depth, regimes, pooling, eps, constant):
    rng = np.random.default_rng(seed)
    net = exact.random_network(rng, depth, regimes, pooling)
    x, y = exact.random_images(rng, 3), torch.from_numpy(rng.integers(0, net.num_classes, 3))
    rigorous = RigorousNetwork(net, constant=constant)
    margins, intervals = rigorous.margins(x, y, eps), rigorous.intervals(x, eps)
    for i in range(3):
        values = exact.propagate(net, exact.input_box(x[i], Fraction(eps)))
        for step, value, interval in zip(("input", *net.steps), values, intervals, strict=False):
            assert value.contained(interval.lower[i], interval.upper[i]), step
        truth = exact.smallest_margin(net, values[net.head.inputs[0]], int(y[i]))
        assert margins[i].item() == -math.inf or Fraction(margins[i].item()) <= truth


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), depth=st.integers(1, 6), regime=st.sampled_from(exact.REGIMES))
def test_each_layer_widens_by_no_more_than_the_law_says(seed, depth, regime):
    rng = np.random.default_rng(seed)
    net = exact.random_network(rng, depth, [regime], str(rng.choice(["none", "avg"])))
    affine_bounds_hold(net, RigorousNetwork(net), exact.random_images(rng, 1), float(10 ** rng.uniform(-9, 0)))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), epsilon=st.sampled_from([1e-5, 0.0, 1e-12]))
def test_batchnorm_in_eval_mode(seed, epsilon):
    rng = np.random.default_rng(seed)

    def draw(low, high):
        return torch.from_numpy(np.exp2(rng.uniform(low, high, 2)) * rng.choice([-1, 1], 2)).float()

    step = BatchNorm(
        **ONE_STEP, gamma=draw(-30, 10), beta=draw(-9, 9), mean=draw(-9, 9), var=draw(-40, 20).abs(), epsilon=epsilon
    )
    net = Network(
        (
            step,
            ReLU(inputs=(1,)),
            Flatten(inputs=(2,)),
            Linear(inputs=(3,), weight=torch.randn(2, 18), bias=torch.zeros(2)),
        )
    )
    affine_bounds_hold(net, RigorousNetwork(net), exact.random_images(rng, 2), 10 ** rng.uniform(-9, 0))


def test_values_read_twice_are_not_overwritten():
    """A ReLU works in place where it may: not where its input, or an alias of it, is read again."""
    torch.manual_seed(0)
    conv = Conv(inputs=(0,), weight=torch.randn(2, 2, 3, 3), bias=torch.randn(2), padding=(1, 1))
    net = Network(
        (
            conv,
            Flatten(inputs=(1,)),
            ReLU(inputs=(2,)),
            Permute(inputs=(1,), dims=(0, 2, 3, 1)),
            Flatten(inputs=(4,)),
            Add(inputs=(3, 5)),
            Concat(inputs=(6, 2), dim=1),
            Linear(inputs=(7,), weight=torch.randn(3, 36), bias=torch.randn(3)),
        )
    )
    rng = np.random.default_rng(0)
    x, y = exact.random_images(rng, 2), torch.tensor([0, 1])
    margins = RigorousNetwork(net).margins(x, y, 0.01)
    for i in range(2):
        truth = float(exact.margin(net, x[i], int(y[i]), Fraction(0.01)))
        assert truth - 1e-10 < margins[i].item() < truth


def small_cnn(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    shape = {"input_shape": (3, 16, 16), "num_classes": 10, "mean": [0.49, 0.48, 0.45], "std": [0.25, 0.24, 0.26]}
    return trace(CNN(**shape, convs=[(8, 2), (16, 1), (16, 2)], hidden=64).eval()).detach()


def loss_half_margin(net: Network, images: torch.Tensor, labels: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
    """Per image: how far the rigorous margin lies below plain float64's, the interval's half-width, the margin."""
    plain = net.to(torch.float64)
    hidden = ibp.propagate(plain, ibp.input_box(images.double(), eps))
    lower = ibp.margin_bounds(plain.head, hidden, labels)
    worst = lower.scatter(1, labels.unsqueeze(1), torch.inf).argmin(1)
    rows = (plain.head.weight[labels] - plain.head.weight[worst]).abs()
    half = (rows * (hidden.upper - hidden.lower)).sum(1) / 2
    margin = ibp.smallest_margin(lower, labels)
    return margin - RigorousNetwork(net).margins(images, labels, eps), half, margin


@pytest.mark.parametrize("eps", [1e-4, 1 / 255, 8 / 255])
def test_the_cost_of_rigour_on_a_small_cnn(eps):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (8, 3, 16, 16)) / 255).float()
    loss, half, _ = loss_half_margin(small_cnn(), images, torch.arange(8) % 10, eps)
    growth = loss / half
    assert float(growth.max()) <= 1e-9
    assert float(growth.min()) > 0  # strictly outside: the float64 evaluation itself rounds by far less


@pytest.mark.parametrize("eps", [1e-4, 2 / 255, 0.1])
def test_the_cost_of_rigour_on_the_bundled_networks(eps):
    """The half-width grows by at most 1e-9 of itself, or, where it is below 1e-3 of the logits, by 4e-12 of the logits.

    The second case is that of very robust networks at tiny eps, whose intervals shrink to 1e-5 of the logits: 1e-9 of
    that is 100 roundoffs of the logits themselves, out of reach of a bound whose layers are computed in float64.
    Sums of 8,192 products, in the hidden layer of the CNN-5, have twice the roundoff: 2e-9.
    """
    very_robust = {"mnist_kappa000", "mnist_kappa050", "mnist_eps015_kappa000"}
    very_robust |= {"cifar10_ibp_kappa000", "cifar10_ibp_kappa050"}
    long_sums = {name for name in acert_zoo.list_models() if name.startswith(("cifar10_eps2_", "cifar10_eps3_"))}
    thin_networks = set()
    for name in acert_zoo.list_models():
        if acert_zoo.model_info(name).kind != "model":
            continue
        model = acert_zoo.load_model(name)
        images, labels = acert_zoo.sample_data(acert_zoo.model_info(name).dataset, n=16)
        loss, half, _ = loss_half_margin(trace(model).detach(), images, labels, eps)
        size = model(images).detach().abs().amax(1).double()  # of the logits
        close, thin = loss <= (2e-9 if name in long_sums else 1e-9) * half, half <= 1e-3 * size
        assert bool((close | (thin & (loss <= 4e-12 * size))).all()), (name, eps)
        if not bool(close.all()):
            thin_networks.add(name)
    assert thin_networks <= (very_robust if eps < 2 / 255 else set())


def test_larger_constants_give_nested_bounds():
    """P_c of the cascades: intervals for 5c on the outer box hold those for c on any box inside it."""
    net = small_cnn(1)
    rng = np.random.default_rng(1)
    outer = torch.from_numpy(rng.integers(0, 256, (4, 3, 16, 16)) / 255).float()
    by = torch.from_numpy(rng.uniform(-1, 1, outer.shape)).float() * 2**-9
    inner = (outer + by).clamp(0, 1)
    distance = (inner.double() - outer.double()).abs().flatten(1).amax(1)
    eps = distance * 1.5
    small, large = eps - distance, eps
    for c in (1, 5):
        tight = RigorousNetwork(net, constant=c).intervals(inner, small)
        loose = RigorousNetwork(net, constant=5 * c).intervals(outer, large)
        assert all(
            bool((a.lower >= b.lower).all() and (a.upper <= b.upper).all()) for a, b in zip(tight, loose, strict=True)
        )
