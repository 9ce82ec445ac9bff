"""auto-LiRPA's bounds: quiet, ours where they are interval bounds, and never above what a network does."""

from __future__ import annotations

import itertools
import logging
import warnings

import pytest
import torch
from torch import Tensor

from acert_zoo.bounds.auto_lirpa import LirpaBounds
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.rigorous_crown import rigorous_check
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Flatten, Linear
from acert_zoo.rounding import CROWN_METHODS
from tests.support.models import SHAPE


def test_nothing_is_printed(network: Network, batch: tuple[Tensor, Tensor], capfd: pytest.CaptureFixture[str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LirpaBounds(network, SHAPE).margins(*batch, 0.01, "alpha-crown")
    assert logging.getLogger("auto_LiRPA.utils").handlers == []
    assert capfd.readouterr().out == ""


def test_interval_bounds_are_ours(network: Network, batch: tuple[Tensor, Tensor]):
    theirs = LirpaBounds(network, SHAPE, torch.float64).margins(*batch, 0.02, "ibp")
    ours = robust_margin(network.to(torch.float64), batch[0].double(), batch[1], 0.02)
    assert torch.allclose(theirs, ours, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tighter_methods_are_tighter_and_true(network: Network, batch: tuple[Tensor, Tensor], dtype: torch.dtype):
    images, labels = batch
    bounds = LirpaBounds(network, SHAPE, dtype)
    eps = torch.tensor([0.01, 0.02, 0.03])
    ladder = [bounds.margins(images, labels, eps, m) for m in ("ibp", *CROWN_METHODS)]
    assert bool((ladder[0] < ladder[1]).any())
    assert bool((ladder[2] < ladder[3]).any())  # optimised slopes do move
    for looser, tighter in itertools.pairwise(ladder):
        assert bool((looser <= tighter + 1e-5).all())
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        moved = images + eps.view(-1, 1, 1, 1) * (2 * torch.rand(images.shape, generator=generator) - 1).sign()
        logits = network(moved.clamp(0, 1))
        others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
        margins = logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others
        assert bool((ladder[3] <= margins.double() + 1e-5).all())


def test_one_call_leaves_nothing_behind_for_the_next(network: Network, batch: tuple[Tensor, Tensor]):
    """From few open neurons to nearly all of them and back: auto-LiRPA keeps slopes and their places."""
    bounds, fresh = LirpaBounds(network, SHAPE), LirpaBounds(network, SHAPE)
    first = fresh.margins(*batch, 0.03, "alpha-crown")
    for eps in (0.001, 0.3, 0.03):
        last = bounds.margins(*batch, eps, "alpha-crown")
    assert torch.allclose(last, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_our_rigorous_bounds_are_auto_lirpas_to_rounding(network: Network, batch: tuple[Tensor, Tensor], method: str):
    theirs = LirpaBounds(network, SHAPE, torch.float64).margins(*batch, 0.02, method)
    ours = rigorous_check(network, method).margins(*batch, 0.02)
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_no_bound_is_above_what_the_network_does(monkeypatch: pytest.MonkeyPatch):
    """One pixel, logits (x, 1 - x), 0.75 within 0.3: the margin falls to 2 * 0.45 - 1 = -0.1, whatever is claimed."""
    head = Linear(inputs=(1,), weight=torch.tensor([[1.0], [-1.0]]), bias=torch.tensor([0.0, 1.0]))
    network = Network((Flatten(inputs=(0,)), head))
    bounds, image = LirpaBounds(network, (1, 1, 1), torch.float64), torch.full((1, 1, 1, 1), 0.75)
    label = torch.zeros(1, dtype=torch.int64)
    assert bounds.margins(image, label, 0.3, "crown").item() == pytest.approx(-0.1)
    bounds.margins(image, label, 0.3, "crown")
    claim = torch.full((1, 1), 7.0, dtype=torch.float64)
    monkeypatch.setattr(bounds._module(optimized=False), "compute_bounds", lambda **arguments: (claim, None))
    assert bounds.margins(image, label, 0.3, "crown").item() == pytest.approx(-0.1)
