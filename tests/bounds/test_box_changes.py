"""Changes of proved boxes: by hand, against exact rational arithmetic, under hostile summation, on bundled models.

Also tested here: bounds/margin_rows.py.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import acert_zoo
from acert_zoo.bounds import box_changes
from acert_zoo.bounds.box_changes import Anchor, BoxChange
from acert_zoo.bounds.proved_margins import anchored
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, Affine, Conv, Flatten, Linear, MaxPool, Normalize, ReLU
from acert_zoo.network.tracing import trace
from tests.support import rational as exact
from tests.support.blas import ORDERS, HostileBlas

LABEL = torch.zeros(1, dtype=torch.int64)
EIGHTH = torch.tensor([0.125], dtype=torch.float64)


def prepared(network: Network) -> tuple[RigorousNetwork, BoxChange]:
    change = BoxChange.of(network, "real-sound")
    assert change is not None
    return RigorousNetwork(network), change


def moved(network: Network, images: torch.Tensor, labels: torch.Tensor, eps: float, other: float) -> torch.Tensor:
    """Margin bounds [N, K] at `other`, from those at `eps`."""
    net, change = prepared(network)
    anchor = anchored(net, images, labels, torch.full((len(labels),), eps, dtype=torch.float64))
    return change.margins(anchor, torch.arange(len(labels)), torch.full_like(anchor.eps, other))


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
    sizes = (0.0, 0.0625, 0.125, 0.1875, 0.25, 0.5, 0.75)
    for eps in sizes:
        for other in sizes:
            bound = moved(network, images, LABEL, eps, other)[0]
            truth = max(0.0, 0.5 - 2 * other)
            assert truth - 2e-5 * abs(other - eps) - 1e-12 <= bound[1].item() <= truth
            assert bound[0].item() == torch.inf


def test_an_inactive_relu_wakes_up_and_falls_asleep():
    """h = relu(x - 5/8), f = (1, 4 h): x = 1/2 lets h begin to grow at eps = 1/8."""
    network = layers(torch.tensor([[1.0]]), torch.tensor([[0.0], [4.0]]))
    steps = list(network.steps)
    steps[1] = dataclasses.replace(steps[1], bias=torch.tensor([-0.625]))
    steps[3] = dataclasses.replace(steps[3], bias=torch.tensor([1.0, 0.0]))
    for eps, other, truth in ((0.0625, 0.25, 0.5), (0.25, 0.0625, 1.0), (0.25, 0.1875, 0.75)):
        bound = moved(Network(tuple(steps)), torch.full((1, 1, 1, 1), 0.5), LABEL, eps, other)
        assert truth - 1e-5 <= bound[0, 1].item() <= truth


def test_the_cube_stops_the_box():
    network = layers(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [0.0]]))
    images = torch.tensor([0.125, 1.0]).view(1, 1, 1, 2)
    for eps, other, truth in ((0.0625, 0.5, 0.5), (0.5, 0.0625, 1.0)):  # x_0 stops at 0; x_1 goes on to 1/2
        assert truth - 1e-5 <= moved(network, images, LABEL, eps, other)[0, 1].item() <= truth


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
    growing=st.booleans(),
)
def test_no_bound_lies_above_the_exact_one(seed, depth, regimes, eps, factor, growing):
    """Any step outward or inward, also one far wider than those that the search takes."""
    rng = np.random.default_rng(seed)
    network = exact.random_network(rng, depth, regimes)
    steps = [s for s in network.steps if not isinstance(s, Add)]
    chain = [dataclasses.replace(s, inputs=(i,)) for i, s in enumerate(steps)]
    network = Network(tuple(_normal(s) for s in chain))
    images = exact.random_images(rng, 2)
    labels = torch.from_numpy(rng.integers(0, network.num_classes, 2))
    small, large = 10.0**eps, min(2.0, 10.0**eps * (1 + 10.0**factor))
    bounds = moved(network, images, labels, *((small, large) if growing else (large, small)))
    for i in range(2):
        truth = class_margins(network, images[i], int(labels[i]), Fraction(large if growing else small))
        for bound, margin in zip(bounds[i].tolist(), truth, strict=True):
            if margin is not None and np.isfinite(bound):
                assert Fraction(bound) <= margin


def _normal(step):
    """The step without subnormal weights, for which this is not meant."""
    if not isinstance(step, Affine):
        return step
    tiny = step.weight.abs() < 2.0**-120
    return dataclasses.replace(step, weight=step.weight.masked_fill(tiny, 0.0))


def rounding_down() -> Network:
    """One hidden sum: 64 weights 1, then 220 below half an ulp of 64: added one by one in float32 they vanish."""
    weight = torch.full((1, 284), 0.9 * 2.0**-18)
    weight[0, :64] = 1.0
    return layers(weight, torch.tensor([[1.0], [0.0]]))


def rounding_up() -> Network:
    """The same with weights just above half an ulp: they count twice."""
    weight = torch.full((1, 284), 1.1 * 2.0**-18)
    weight[0, :64] = 1.0
    return layers(weight, torch.tensor([[1.0], [0.0]]))


PLANTED = [(rounding_down, 0.125, 0.25), (rounding_up, 0.25, 0.125)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("network", "eps", "other"), PLANTED)
def test_any_order_of_summation(network, eps, other, order):
    images = torch.full((5, 1, 1, 284), 0.5)
    truth = class_margins(network(), images[0], 0, Fraction(other))[1]
    with HostileBlas(order) as blas:
        bound = moved(network(), images, LABEL.expand(5), eps, other)[:, 1]
    assert blas.calls
    assert all(Fraction(b) <= truth for b in bound.tolist())
    assert (bound >= float(truth) * (1 - 1e-3)).all()


@pytest.mark.parametrize(("network", "eps", "other"), PLANTED)
def test_without_the_factor_a_bound_is_wrong(network, eps, other, monkeypatch):
    images = torch.full((5, 1, 1, 284), 0.5)
    truth = class_margins(network(), images[0], 0, Fraction(other))[1]
    monkeypatch.setattr(box_changes, "gamma", lambda k, u: 0.0)
    monkeypatch.setattr(box_changes, "U32", 0.0)
    monkeypatch.setattr(box_changes, "HEAD", 0.0)
    with HostileBlas("forward"):
        bound = moved(network(), images, LABEL.expand(5), eps, other)[:, 1]
    assert all(Fraction(b) > truth for b in bound.tolist())


@pytest.mark.parametrize(("eps", "other"), [(0.01, 0.05), (0.05, 0.01)])
@pytest.mark.parametrize("end", ["lower", "upper"])
def test_without_the_ends_at_the_relus_a_bound_is_wrong(end, eps, other, monkeypatch):
    """Sleeping neurons that wake would be missed, or sleeping ones would shrink."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(k, n, generator=generator) for n, k in ((4, 16), (16, 16), (16, 3))]
    network = layers(*weights, bias=-0.2)
    images = torch.rand(20, 1, 2, 2, generator=generator)
    labels = network(images).argmax(1)
    right = moved(network, images, labels, eps, other)
    see = Anchor.see
    wrong_end = (-1.0 if other > eps else 1.0) * 1e6

    def forget(self, begin, index, x):
        see(self, begin, index, x)
        getattr(self, end)[index].fill_(wrong_end)

    monkeypatch.setattr(Anchor, "see", forget)
    wrong = moved(network, images, labels, eps, other)
    others = right.isfinite()
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
    "weights whose half is 0": (conv(weight=torch.full((1, 1, 3, 3), 2.0**-149)), Flatten(inputs=(1,)), head(9, 2)),
    "weights that halve to subnormals": (
        conv(weight=torch.full((1, 1, 3, 3), 2.0**-126)),
        Flatten(inputs=(1,)),
        head(9, 2),
    ),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_networks_it_is_not_for(name):
    assert BoxChange.of(Network(UNSUITED[name]), "real-sound") is None


def test_where_it_is_for():
    network = Network((conv(), ReLU(inputs=(1,)), Flatten(inputs=(2,)), head(9, 3)))
    assert BoxChange.of(network, "real-sound") is not None
    assert BoxChange.of(network, "float32-deployed") is None


def test_settings_under_which_float32_products_are_no_plain_sums(monkeypatch):
    network = Network((conv(), Flatten(inputs=(1,)), head(9, 2)))
    net, change = prepared(network)
    anchor = anchored(net, torch.full((1, 1, 3, 3), 0.5), LABEL, EIGHTH)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert BoxChange.of(network, "real-sound") is None
    assert change.margins(anchor, torch.arange(1), anchor.eps).isnan().all()


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
    net, change = prepared(live)
    anchor = anchored(net, torch.full((1, 1, 3, 3), 0.5), LABEL, EIGHTH)
    before = change.margins(anchor, torch.arange(1), anchor.eps * 2)
    for t in (live.steps[0].std, live.steps[1].weight, live.head.weight):
        t.mul_(3)
    assert torch.equal(change.margins(anchor, torch.arange(1), anchor.eps * 2), before)


def test_overflow_is_no_bound():
    network = layers(torch.full((1, 1), 3e38), torch.full((1, 1), 3e38), torch.tensor([[1.0], [0.0]]))
    bound = moved(network, torch.full((1, 1, 1, 1), 0.5), LABEL, 0.125, 0.25)
    assert not bound[0, 1].isfinite()


@pytest.mark.parametrize("name", ["cifar10_kappa025", "mnist_kappa000"])
def test_little_is_lost_on_the_bundled_networks(name):
    """Against a float64 propagation of its own: never above it, and below it by about `loss` of the change."""
    model = acert_zoo.load_model(name)
    images, labels = acert_zoo.sample_data(model.info.dataset)
    radius = acert_zoo.certify(model, images, labels).radius
    images, labels, radius = images[radius > 0], labels[radius > 0], radius[radius > 0]
    net, change = prepared(trace(model).detach())
    assert change.loss < 4e-4
    truth = net.margins(images, labels, radius)
    for step in (1e-2, 1e-4, -1e-2, -1e-4):
        anchor = anchored(net, images, labels, radius * (1 - step))
        bound = change.margins(anchor, torch.arange(len(labels)), radius).amin(1)
        difference = (anchor.margins.amin(1) - truth).abs()
        assert (bound <= truth + 1e-12).all()
        assert (truth - bound <= 10 * change.loss * difference + 1e-12).all()


def test_a_subset_of_the_images_can_be_replaced():
    model = acert_zoo.load_model("mnist_kappa000")
    images, labels = acert_zoo.sample_data("mnist", n=8)
    net, change = prepared(trace(model).detach())
    anchor = anchored(net, images, labels, torch.full((8,), 0.1).double())
    index = torch.tensor([5, 2])
    other = anchored(net, images[index], labels[index], torch.full((2,), 0.25).double())
    anchor.put(index, other)
    whole = anchored(net, images, labels, anchor.eps)
    assert anchor.eps[[2, 5]].tolist() == [0.25, 0.25]
    assert torch.allclose(anchor.margins, whole.margins, rtol=1e-12)
    changes = [change.margins(a, torch.arange(8), torch.full_like(a.eps, 0.26)) for a in (anchor, whole)]
    assert torch.allclose(*changes, rtol=1e-5)
