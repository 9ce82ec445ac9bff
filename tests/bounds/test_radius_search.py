"""The radius search: hand-checkable networks, then random ones against a float64 bisection of the same bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import UnknownNameError, UnsoundSettingError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear, ReLU
from acert_zoo.network.tracing import trace
from tests.support.models import small_model

LEVELS = ("float32", "real-sound", "float32-deployed")


def bisected(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """The root of the float64 IBP margin on [0, 1], to the last digit; 0 where it is not positive at 0."""
    wide = network.to(torch.float64)
    low, high = torch.zeros(len(images), dtype=torch.float64), torch.ones(len(images), dtype=torch.float64)
    passed = robust_margin(wide, images.double(), labels, high) > 0
    low[passed] = 1.0
    for _ in range(70):
        middle = (low + high) / 2
        passed = robust_margin(wide, images.double(), labels, middle) > 0
        low, high = torch.where(passed, middle, low), torch.where(passed, high, middle)
    return low


def one_pixel(scale: float = 1.0, bias: float = 0.0) -> Network:
    """Logits (scale x + bias, 0) of one pixel x: the margin of class 0 vanishes at x = -bias / scale."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[scale], [0.0]]))
        model[1].bias.copy_(torch.tensor([bias, 0.0]))
    return trace(model.eval()).detach()


def pixel(x: float) -> Tensor:
    return torch.full((1, 1, 1, 1), x)


@pytest.mark.parametrize("rounding", LEVELS)
def test_one_pixel_known_radius(rounding: str) -> None:
    found = certified_radius(one_pixel(1.0, -0.25), pixel(0.75), torch.tensor([0]), rounding=rounding)
    assert 0.5 * (1 - 2e-6) <= found.radius.item() <= 0.5
    assert 0 < found.margin.item() < 1e-5


@pytest.mark.parametrize("rounding", LEVELS)
def test_misclassified_is_zero(rounding: str) -> None:
    found = certified_radius(one_pixel(1.0, -0.25), pixel(0.75), torch.tensor([1]), rounding=rounding)
    assert found.radius.item() == 0
    assert math.isnan(found.margin.item())


@pytest.mark.parametrize("rounding", LEVELS)
def test_constant_classifier_reaches_one(rounding: str) -> None:
    found = certified_radius(one_pixel(0.0, 2.0), pixel(0.5), torch.tensor([0]), rounding=rounding)
    assert found.radius.item() == 1.0


def test_the_cube_stops_the_box() -> None:
    """The logits meet only below x = 0, which no box within the cube reaches."""
    assert certified_radius(one_pixel(1.0, 0.125), pixel(0.5), torch.tensor([0])).radius.item() == 1.0


def test_equal_logits_prove_nothing() -> None:
    assert certified_radius(one_pixel(1.0, -0.5), pixel(0.5), torch.tensor([0])).radius.item() == 0


@pytest.mark.parametrize("exponent", [-30, -20, -12, -6])
def test_tiny_radii_keep_their_digits(exponent: int) -> None:
    """Radius 2^e exactly: float32 margins lose digits there, the float64 end of the search does not."""
    network = one_pixel(2.0**10, -(2.0**9))
    x = torch.nextafter(torch.tensor(0.5 + 2.0**exponent), torch.tensor(0.0)) if exponent < -24 else 0.5 + 2.0**exponent
    x = float(torch.tensor(float(x), dtype=torch.float32))
    radius = x - 0.5
    found = certified_radius(network, pixel(x), torch.tensor([0])).radius.item()
    if radius <= 0:
        assert found == 0
    else:
        assert radius * (1 - 1.5e-6) <= found <= radius


@pytest.mark.parametrize("rounding", LEVELS)
@pytest.mark.parametrize("weight", [1e1, 1e2, 1e3])
def test_a_plateau_just_below_0_does_not_hold_up_the_search(rounding: str, weight: float) -> None:
    """Logits (relu(w x), 0.2) at x = 0.5: R falls steeply to a plateau that lies, relatively, 0.4 / w below 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[1].weight.fill_(weight)
        model[1].bias.zero_()
        model[3].weight.copy_(torch.tensor([[1.0], [0.0]]))
        model[3].bias.copy_(torch.tensor([0.0, 0.2]))
    network = trace(model, (1, 1, 1)).detach()
    found = certified_radius(network, pixel(0.5), torch.tensor([0]), rounding=rounding)
    root = 0.5 - 0.2 / weight
    assert root * (1 - 2e-6) <= found.radius.item() <= root * (1 + 1e-6)
    assert found.evaluations <= 50


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rounding", LEVELS)
def test_hostile_networks_end_within_the_bound(seed: int, rounding: str) -> None:
    """Weights between 2^-40 and 2^40: steps, plateaus, overflows; what is returned passes a fresh proof."""
    generator = torch.Generator().manual_seed(seed)

    def linear(source: int, inputs: int, outputs: int) -> Linear:
        scale = 2.0 ** torch.randint(-40, 40, (outputs, inputs), generator=generator)
        weight = torch.randn(outputs, inputs, generator=generator) * scale
        return Linear(inputs=(source,), weight=weight, bias=torch.randn(outputs, generator=generator))

    hidden = (linear(1, 4, 6), ReLU(inputs=(2,)), linear(3, 6, 5), ReLU(inputs=(4,)), linear(5, 5, 3))
    network = Network((Flatten(inputs=(0,)), *hidden))
    images = torch.rand(20, 1, 2, 2, generator=generator)
    labels = network(images).argmax(1)
    found = certified_radius(network, images, labels, rounding=rounding)
    assert found.evaluations <= 98 * 20
    assert ((found.radius >= 0) & (found.radius <= 1)).all()
    if rounding != "float32":
        good = found.radius > 0
        assert RigorousNetwork(network, rounding).proves(images[good], labels[good], found.radius[good]).all()


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_match_bisection(seed: int) -> None:
    network = trace(small_model(seed)).detach()
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    labels = network(images).argmax(1)
    labels[::5] = (labels[::5] + 1) % 4
    truth = bisected(network, images, labels)
    found = certified_radius(network, images, labels, batch_size=7)
    assert (found.radius <= truth * (1 + 1e-12)).all()
    assert (found.radius >= truth * (1 - 2e-6)).all()
    assert (found.radius[::5] == 0).all()
    plain = certified_radius(network, images, labels, rounding="float32").radius
    assert torch.allclose(plain, truth, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("level", ["real-sound", "float32-deployed"])
def test_the_returned_radius_passes_a_fresh_proof(level: str) -> None:
    network = trace(small_model(7)).detach()
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    labels = network(images).argmax(1)
    found = certified_radius(network, images, labels, rounding=level)
    good = found.radius > 0
    assert good.sum() >= 38
    proof = RigorousNetwork(network, level)
    for i in good.nonzero().flatten().tolist():  # one at a time: another order of summation than in the search
        assert proof.proves(images[i : i + 1], labels[i : i + 1], found.radius[i : i + 1]).item()
    larger = proof.margins(images[good], labels[good], found.radius[good] * (1 + 5e-6))
    assert (larger <= 0).all(), "the search stopped too early"


def test_batch_size_does_not_matter() -> None:
    network = trace(small_model(3)).detach()
    images = torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = network(images).argmax(1)
    radii = [certified_radius(network, images, labels, batch_size=b).radius for b in (1, 8, 30)]
    for other in radii[1:]:
        assert torch.allclose(radii[0], other, rtol=2e-6, atol=0)


def test_few_evaluations() -> None:
    """A work bound, not a time: bisection to 1e-6 would need 20 and more."""
    network = trace(small_model(4)).detach()
    images = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    found = certified_radius(network, images, network(images).argmax(1))
    assert found.evaluations <= 9 * 200
    assert found.proofs <= 3.5 * 200


def test_overflowing_network_proves_nothing() -> None:
    network = one_pixel(3e38, -3e38)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(3e38)
    network = trace(model.eval()).detach()
    assert certified_radius(network, pixel(0.5), torch.tensor([0])).radius.item() == 0


def test_unknown_level_and_unsound_network() -> None:
    network = one_pixel()
    with pytest.raises(UnknownNameError, match="real-sound"):
        certified_radius(network, pixel(0.5), torch.tensor([0]), rounding="real-sond")
    with pytest.raises(UnsoundSettingError, match="not finite"):
        certified_radius(one_pixel(math.inf), pixel(0.5), torch.tensor([0]))


def test_no_images() -> None:
    found = certified_radius(one_pixel(), torch.zeros(0, 1, 1, 1), torch.zeros(0, dtype=torch.int64))
    assert found.radius.shape == (0,)
    assert found.evaluations == 0
