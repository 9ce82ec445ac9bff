"""Growth of proved boxes: by hand, against exact rational arithmetic, under hostile summation, on bundled models."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import acert_zoo
from acert_zoo.bounds import growth
from acert_zoo.bounds.growth import Anchor, Growth
from acert_zoo.bounds.rigorous import RigorousNetwork
from acert_zoo.network import Add, Affine, Conv, Flatten, Linear, MaxPool, Network, Normalize, ReLU, trace
from tests import support_rational as exact
from tests.support_blas import ORDERS, HostileBlas

LABEL = torch.zeros(1, dtype=torch.int64)


def anchored(net: RigorousNetwork, images: torch.Tensor, labels: torch.Tensor, eps: torch.Tensor | float) -> Anchor:
    sizes = torch.as_tensor(eps, dtype=torch.float64).expand(len(labels)).clone()
    anchor = Anchor(images, labels, sizes, net.head)
    anchor.margins = net.class_margins(images, labels, sizes, anchor.see)
    return anchor


def grown(network: Network, images: torch.Tensor, labels: torch.Tensor, eps: float, larger: float) -> torch.Tensor:
    """Margin bounds [N, K] at `larger`, from those at `eps`."""
    net = RigorousNetwork(network)
    assert net.growth is not None
    anchor = anchored(net, images, labels, eps)
    return anchor.margins + net.growth.change(anchor, torch.arange(len(labels)), torch.full_like(anchor.eps, larger))


def layers(*weights: torch.Tensor, bias: float = 0.0) -> Network:
    """Flatten, then linear layers with ReLUs in between."""
    steps: list = [Flatten(inputs=(0,))]
    for i, weight in enumerate(weights):
        steps.append(Linear(inputs=(len(steps),), weight=weight, bias=torch.full((len(weight),), bias)))
        if i + 1 < len(weights):
            steps.append(ReLU(inputs=(len(steps),)))
    return Network(tuple(steps))


def test_two_pixels_by_hand():
    """h = relu(x_0 - x_1), f = (h, 0): on the box of radius eps about (3/4, 1/4) the margin is relu(1/2 - 2 eps)."""
    network = layers(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0], [0.0]]))
    images = torch.tensor([0.75, 0.25]).view(1, 1, 1, 2)
    for eps, larger in ((0.125, 0.1875), (0.125, 0.25), (0.125, 0.5), (0.0, 0.125), (0.25, 0.75), (0.125, 0.125)):
        bound = grown(network, images, LABEL, eps, larger)[0]
        truth = max(0.0, 0.5 - 2 * larger)
        assert truth - 2e-5 * (larger - eps) - 1e-12 <= bound[1].item() <= truth
        assert bound[0].item() == torch.inf


def test_an_inactive_relu_wakes_up():
    """h = relu(x - 5/8), f = (1, 4 h): x = 1/2 lets h begin to grow at eps = 1/8."""
    network = layers(torch.tensor([[1.0]]), torch.tensor([[0.0], [4.0]]))
    steps = list(network.steps)
    steps[1] = dataclasses.replace(steps[1], bias=torch.tensor([-0.625]))
    steps[3] = dataclasses.replace(steps[3], bias=torch.tensor([1.0, 0.0]))
    bound = grown(Network(tuple(steps)), torch.full((1, 1, 1, 1), 0.5), LABEL, 0.0625, 0.25)
    assert 0.5 - 1e-5 <= bound[0, 1].item() <= 0.5


def test_the_cube_stops_the_growth():
    network = layers(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [0.0]]))
    images = torch.tensor([0.125, 1.0]).view(1, 1, 1, 2)
    bound = grown(network, images, LABEL, 0.0625, 0.5)[0, 1].item()
    assert 0.5 - 1e-5 <= bound <= 0.5  # x_0 stops at 0, x_1 at 1/2


def class_margins(network: Network, image: torch.Tensor, label: int, eps: Fraction) -> list[Fraction | None]:
    """Exact margins f_label - f_t for each t; None for the label."""
    hidden = exact.propagate(network, exact.input_box(image, eps))[network.head.inputs[0]]
    found: list[Fraction | None] = []
    for t in range(network.num_classes):
        rows = [label, t]
        head = dataclasses.replace(network.head, weight=network.head.weight[rows], bias=network.head.bias[rows])
        pair = Network((*network.steps[:-1], head))
        found.append(None if t == label else exact.smallest_margin(pair, hidden, 0))
    return found


@settings(max_examples=600)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.integers(1, 5),
    regimes=st.lists(st.sampled_from(["normal", "sparse", "integer", "wide"]), min_size=1, max_size=3),
    eps=st.floats(-9, 0),
    factor=st.floats(-7, 1),
)
def test_no_grown_bound_lies_above_the_exact_one(seed, depth, regimes, eps, factor):
    """Any step outward, also one far wider than those that the search takes."""
    rng = np.random.default_rng(seed)
    network = exact.random_network(rng, depth, regimes)
    steps = [s for s in network.steps if not isinstance(s, Add)]
    chain = [dataclasses.replace(s, inputs=(i,)) for i, s in enumerate(steps)]
    network = Network(tuple(_normal(s) for s in chain))
    images = exact.random_images(rng, 2)
    labels = torch.from_numpy(rng.integers(0, network.num_classes, 2))
    small, large = 10.0**eps, min(2.0, 10.0**eps * (1 + 10.0**factor))
    bounds = grown(network, images, labels, small, large)
    for i in range(2):
        truth = class_margins(network, images[i], int(labels[i]), Fraction(large))
        for bound, margin in zip(bounds[i].tolist(), truth, strict=True):
            if margin is not None and np.isfinite(bound):
                assert Fraction(bound) <= margin


def _normal(step):
    """The step without subnormal weights, for which growth is not meant."""
    if not isinstance(step, Affine):
        return step
    tiny = step.weight.abs() < 2.0**-120
    return dataclasses.replace(step, weight=step.weight.masked_fill(tiny, 0.0))


def rounding_down() -> Network:
    """One hidden sum: 64 weights 1, then 220 below half an ulp of 64: added one by one in float32 they vanish."""
    weight = torch.full((1, 284), 0.9 * 2.0**-18)
    weight[0, :64] = 1.0
    return layers(weight, torch.tensor([[1.0], [0.0]]))


@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_summation(order):
    images = torch.full((5, 1, 1, 284), 0.5)
    labels = LABEL.expand(5)
    truth = class_margins(rounding_down(), images[0], 0, Fraction(0.25))[1]
    with HostileBlas(order) as blas:
        bound = grown(rounding_down(), images, labels, 0.125, 0.25)[:, 1]
    assert blas.calls
    assert all(Fraction(b) <= truth for b in bound.tolist())
    assert (bound >= float(truth) * (1 - 1e-3)).all()


def test_without_the_outward_factor_a_bound_is_wrong(monkeypatch):
    images = torch.full((5, 1, 1, 284), 0.5)
    truth = class_margins(rounding_down(), images[0], 0, Fraction(0.25))[1]
    monkeypatch.setattr(growth, "gamma", lambda k, u: 0.0)
    monkeypatch.setattr(growth, "U32", 0.0)
    monkeypatch.setattr(growth, "HEAD", 0.0)
    with HostileBlas("forward"):
        bound = grown(rounding_down(), images, LABEL.expand(5), 0.125, 0.25)[:, 1]
    assert all(Fraction(b) > truth for b in bound.tolist())


@pytest.mark.parametrize("move", ["lower", "upper"])
def test_without_the_end_of_a_relu_a_bound_is_wrong_or_loose(move, monkeypatch):
    """What is remembered of the ReLUs' inputs matters: forgotten, waking neurons are missed or sleeping ones grow."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(k, n, generator=generator) for n, k in ((4, 16), (16, 16), (16, 3))]
    network = layers(*weights, bias=-0.2)
    images = torch.rand(20, 1, 2, 2, generator=generator)
    labels = network(images).argmax(1)
    right = grown(network, images, labels, 0.01, 0.05)
    see = Anchor.see

    def forget(self, begin, index, x):
        see(self, begin, index, x)
        wall = self.walls[index][begin : begin + len(x.lower)]
        wall.copy_(wall.clamp(min=0) - 1e6 * (wall <= 0) if move == "upper" else wall.clamp(max=0))

    monkeypatch.setattr(Anchor, "see", forget)
    wrong = grown(network, images, labels, 0.01, 0.05)
    others = right.isfinite()
    assert (wrong[others] >= right[others]).all()
    assert (wrong[others] > right[others] + 1e-3).any()


def conv(**fields) -> Conv:
    weight = torch.ones(1, 1, 3, 3)
    return Conv(**{"inputs": (0,), "weight": weight, "bias": torch.zeros(1), "padding": (1, 1), **fields})


def head(n: int, index: int) -> Linear:
    return Linear(inputs=(index,), weight=torch.ones(2, n), bias=torch.zeros(2))


UNSUITED = {
    "a residual": (conv(), Add(inputs=(1, 0)), Flatten(inputs=(2,)), head(9, 3)),
    "max pooling": (
        conv(),
        MaxPool(inputs=(1,), kernel_size=(1, 1), stride=(1, 1)),
        Flatten(inputs=(2,)),
        head(9, 3),
    ),
    "a ReLU of pixels": (ReLU(inputs=(0,)), Flatten(inputs=(1,)), head(9, 2)),
    "normalisation in between": (
        conv(),
        Normalize(inputs=(1,), mean=torch.zeros(1), std=torch.ones(1)),
        Flatten(inputs=(2,)),
        head(9, 3),
    ),
    "subnormal weights": (conv(weight=torch.full((1, 1, 3, 3), 2.0**-140)), Flatten(inputs=(1,)), head(9, 2)),
    "weights that halve to subnormals": (
        conv(weight=torch.full((1, 1, 3, 3), 2.0**-126)),
        Flatten(inputs=(1,)),
        head(9, 2),
    ),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_networks_it_is_not_for(name):
    assert Growth.of(Network(UNSUITED[name]), "real-sound") is None


def test_where_it_is_for():
    network = Network((conv(), ReLU(inputs=(1,)), Flatten(inputs=(2,)), head(9, 3)))
    assert Growth.of(network, "real-sound") is not None
    assert Growth.of(network, "float32-deployed") is None
    assert RigorousNetwork(network, constant=5.0).growth is None


def test_settings_under_which_float32_products_are_no_plain_sums(monkeypatch):
    network = Network((conv(), Flatten(inputs=(1,)), head(9, 2)))
    net = RigorousNetwork(network)
    anchor = anchored(net, torch.full((1, 1, 3, 3), 0.5), LABEL, 0.125)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert Growth.of(network, "real-sound") is None
    assert net.growth is not None
    assert net.growth.change(anchor, torch.arange(1), anchor.eps).isnan().all()


def test_the_snapshot_does_not_follow_the_live_weights():
    live = Network(
        (
            Normalize(inputs=(0,), mean=torch.zeros(1), std=torch.ones(1)),
            *(
                dataclasses.replace(s, inputs=(i + 1,))
                for i, s in enumerate((conv(), Flatten(inputs=(1,)), head(9, 2)))
            ),
        )
    )
    net = RigorousNetwork(live)
    assert net.growth is not None
    anchor = anchored(net, torch.full((1, 1, 3, 3), 0.5), LABEL, 0.125)
    before = net.growth.change(anchor, torch.arange(1), anchor.eps * 2)
    for t in (live.steps[0].std, live.steps[1].weight, live.head.weight):
        t.mul_(3)
    assert torch.equal(net.growth.change(anchor, torch.arange(1), anchor.eps * 2), before)


def test_overflow_is_no_bound():
    network = layers(torch.full((1, 1), 3e38), torch.full((1, 1), 3e38), torch.tensor([[1.0], [0.0]]))
    bound = grown(network, torch.full((1, 1, 1, 1), 0.5), LABEL, 0.125, 0.25)
    assert not bound[0, 1].isfinite()


@pytest.mark.parametrize("name", ["cifar10_kappa025", "mnist_kappa000"])
def test_little_is_lost_on_the_bundled_networks(name):
    """Against a float64 propagation of its own: never above it, and below it by about `loss` of the change."""
    model = acert_zoo.load_model(name)
    images, labels = acert_zoo.sample_data(model.info.dataset)
    radius = acert_zoo.certify(model, images, labels).radius
    images, labels, radius = images[radius > 0], labels[radius > 0], radius[radius > 0]
    net = RigorousNetwork(trace(model).detach())
    assert net.growth is not None
    assert net.growth.loss < 4e-4
    for step in (1e-2, 1e-4):
        anchor = anchored(net, images, labels, radius * (1 - step))
        bound = (anchor.margins + net.growth.change(anchor, torch.arange(len(labels)), radius)).amin(1)
        truth = net.margins(images, labels, radius)
        change = anchor.margins.amin(1) - truth
        assert (bound <= truth + 1e-12).all()
        assert (truth - bound <= 10 * net.growth.loss * change + 1e-12).all()


def test_a_subset_of_the_images_can_be_replaced():
    model = acert_zoo.load_model("mnist_kappa000")
    images, labels = acert_zoo.sample_data("mnist", n=8)
    net = RigorousNetwork(trace(model).detach())
    assert net.growth is not None
    anchor = anchored(net, images, labels, 0.1)
    index = torch.tensor([5, 2])
    other = anchored(net, images[index], labels[index], 0.2)
    anchor.put(index, other)
    whole = anchored(net, images, labels, anchor.eps)
    assert anchor.eps[[2, 5]].tolist() == [0.2, 0.2]
    assert torch.allclose(anchor.margins, whole.margins, rtol=1e-12)
    changes = [net.growth.change(a, torch.arange(8), torch.full_like(a.eps, 0.21)) for a in (anchor, whole)]
    assert torch.allclose(*changes, rtol=1e-5)
