"""The rigorous backward pass: by hand, and on whole networks against exact rationals (rules: test_crown_rules.py).

Also tested here: bounds/crown_windows.py.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from acert_zoo.bounds import crown_rules
from acert_zoo.bounds.rigorous_crown import RigorousCrown, rigorous_check
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear, ReLU, Step
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import CROWN_METHODS
from tests.support import rational as exact

F64 = torch.float64


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def two_layers() -> Network:
    """h = relu(x - 1/4), relu(1/4 - x); f_0 = h_0 + h_1 + 1/8, f_1 = 0, on one pixel."""
    return Network(
        (
            Flatten(inputs=(0,)),
            Linear(inputs=(1,), weight=tensor(1, -1).view(2, 1), bias=tensor(-0.25, 0.25)),
            ReLU(inputs=(2,)),
            Linear(inputs=(3,), weight=tensor(1, 1, 0, 0).view(2, 2), bias=tensor(0.125, 0)),
        )
    )


def test_a_bound_computed_by_hand():
    """x in [0, 1/2]: z_0 in [-1/4, 1/4] = -z_1, slopes 0 (u > -l fails): f_0 - f_1 >= 1/8, less roundings."""
    image, label = torch.full((1, 1, 1, 1), 0.25), torch.zeros(1, dtype=torch.int64)
    bound = RigorousCrown(two_layers(), refine=False).margins(image, label, 0.25).item()
    assert 0.125 - 1e-9 < bound <= 0.125


def test_slopes_are_data_and_any_slopes_give_a_true_bound():
    """With slopes (1, 1), h_0 + h_1 >= z_0 + z_1 = 0: also 1/8. With (1, 0): z_0 = x - 1/4 >= -1/4."""
    crown = RigorousCrown(two_layers(), refine=False)
    box = crown.boxes(torch.full((1, 1, 1, 1), 0.25), 0.25)
    claim = crown_rules.rows(crown.network.head, 0, [1], box[3])
    for slopes, expected in (((1.0, 1.0), 0.125), ((1.0, 0.0), -0.125), ((0.5, 0.5), 0.125), ((7.0, -3.0), -0.125)):
        got = crown.pull(claim, 3, box, {2: torch.tensor([slopes], dtype=F64)}).item()
        assert expected - 1e-9 < got <= expected


def points(image: Tensor, eps: float, rng: np.random.Generator, n: int) -> list[Tensor]:
    """Float32 images inside B(image, eps): corners and others, moved inward where float32 steps over the edge."""
    low = np.nextafter(np.maximum(image.numpy() - np.float32(eps), 0), np.float32(2), dtype=np.float32)
    high = np.nextafter(np.minimum(image.numpy() + np.float32(eps), 1), np.float32(-2), dtype=np.float32)
    low, high = np.minimum(low, image.numpy()), np.maximum(high, image.numpy())
    shares = [rng.integers(0, 2, image.shape), rng.random(image.shape)]
    return [torch.from_numpy(np.where(s < 0.5, low, high).astype(np.float32)) for s in shares for _ in range(n)]


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 4), st.sampled_from(exact.REGIMES), st.sampled_from([0.0, 1e-3, 0.1]))
def test_no_point_of_the_box_has_a_smaller_margin(seed, depth, regime, eps):
    rng = np.random.default_rng(seed)
    network = exact.random_network(rng, depth, [regime, "normal"])
    image = torch.from_numpy(rng.random((1, 2, 3, 3)).astype(np.float32))
    label = torch.zeros(1, dtype=torch.int64)
    bounds = [rigorous_check(network, m).margins(image, label, eps).item() for m in ("crown-ibp", "crown")]
    for point in points(image[0], eps, rng, 2):
        truth = exact.margin(network, point, 0, Fraction(0))
        for bound in bounds:
            assert bound == -math.inf or Fraction(bound) <= truth


def small_residual() -> Network:
    torch.manual_seed(3)
    model = architectures.build(
        "resnet", input_shape=(2, 5, 5), num_classes=3, mean=(0.5, 0.4), std=(0.2, 0.3), stem=3, blocks=[[3, 1]],
        batchnorm=True,
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return trace(model.eval()).detach()


def test_residual_network_with_batchnorm_unfolded():
    network, rng = small_residual(), np.random.default_rng(0)
    image = torch.from_numpy(rng.random((1, 2, 5, 5)).astype(np.float32))
    label = network(image).argmax(1)
    bounds = {m: rigorous_check(network, m).margins(image, label, 0.01).item() for m in CROWN_METHODS}
    interval = RigorousNetwork(network).margins(image, label, 0.01).item()
    assert all(interval <= b for b in bounds.values())
    assert bounds["crown-ibp"] <= bounds["crown"] + 1e-12 <= bounds["alpha-crown"] + 2e-12
    for point in points(image[0], 0.01, rng, 2):
        truth = exact.margin(network, point, int(label), Fraction(0))
        assert all(Fraction(b) <= truth for b in bounds.values())


def test_overflow_proves_nothing():
    """Layers of weight 3e38 overflow float64; a margin whose true value is 0 must not be proved."""
    big = tensor(*[3e38] * 4).view(2, 2)
    steps: list[Step] = [Flatten(inputs=(0,))]
    for _ in range(9):
        steps.append(Linear(inputs=(len(steps),), weight=big, bias=tensor(0, 0)))
        steps.append(ReLU(inputs=(len(steps),)))
    steps.append(Linear(inputs=(len(steps),), weight=tensor(1, 1, 1, 1).view(2, 2), bias=tensor(0, 0)))
    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    for method in CROWN_METHODS:
        assert not rigorous_check(Network(tuple(steps)), method).proves(image, label, 0.1).any()


def test_nothing_is_lost_at_radius_zero_and_no_more_than_rounding():
    network = small_residual()
    image = torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(1))
    label = network(image).argmax(1)
    truth = float(exact.margin(network, image[0], int(label), Fraction(0)))
    for method in CROWN_METHODS:
        bound = rigorous_check(network, method).margins(image, label, 0.0).item()
        assert truth - 1e-7 < bound <= truth


def test_settings_that_prove_nothing_are_refused():
    network = two_layers()
    crown = RigorousCrown(network)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(UnsoundSettingError, match="autocast"):
        crown.margins(torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64), 0.1)


def test_open_neurons_are_refined_in_chunks(monkeypatch: pytest.MonkeyPatch):
    from acert_zoo.bounds import rigorous_crown

    network = small_residual()
    image = torch.rand(1, 2, 5, 5, generator=torch.Generator().manual_seed(2))
    label = network(image).argmax(1)
    whole = RigorousCrown(network).margins(image, label, 0.02)
    monkeypatch.setattr(rigorous_crown, "_CHUNK_BYTES", 8 * 75)
    assert torch.allclose(RigorousCrown(network).margins(image, label, 0.02), whole, rtol=1e-9, atol=1e-12)
