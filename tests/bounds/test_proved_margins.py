"""The function that the last part of a radius search calls: a float64 propagation, then changes from there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from acert_zoo.bounds.box_changes import BoxChange
from acert_zoo.bounds.proved_margins import ProvedMargins, prove
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.tracing import trace
from tests.support.models import small_model


@pytest.fixture
def rigorous() -> RigorousNetwork:
    return RigorousNetwork(trace(small_model(5)).detach())


@pytest.fixture
def change() -> BoxChange | None:
    return BoxChange.of(trace(small_model(5)).detach(), "real-sound")


@pytest.fixture
def batch(rigorous: RigorousNetwork) -> tuple[Tensor, Tensor]:
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return images, rigorous.network(images.double()).argmax(1)


EPS = torch.full((6,), 1e-3, dtype=torch.float64)
ALL = torch.arange(6)


@pytest.mark.parametrize("side", [1, -1])
def test_an_eps_close_to_the_anchor_costs_no_proof(rigorous, change, batch, side):
    margins = ProvedMargins(rigorous, change, *batch, rtol=1e-6)
    assert 1e-5 < margins.window < 1e-2
    first = margins(ALL, EPS)
    assert torch.equal(first, rigorous.class_margins(*batch, EPS))
    assert margins.proofs == 6
    near = EPS * (1 + side * margins.window / 2)
    index = torch.tensor([1, 4])
    second = margins(index, near[index])
    truth = rigorous.class_margins(*(t[index] for t in (*batch, near)))
    assert margins.proofs == 6
    assert (second <= truth).all()
    others = truth.isfinite()
    assert torch.allclose(second[others], truth[others], rtol=0, atol=1e-6 * float(truth[others].max()))


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_any_other_eps_becomes_the_anchor(rigorous, change, batch, factor):
    margins = ProvedMargins(rigorous, change, *batch, rtol=1e-6)
    margins(ALL, EPS)
    index, moved = torch.tensor([0, 3]), EPS[:2] * factor
    assert torch.equal(margins(index, moved), rigorous.class_margins(*(t[index] for t in batch), moved))
    assert margins.proofs == 8
    margins(index, moved * (1 + margins.window / 2))
    margins(torch.tensor([1, 2]), EPS[:2] * (1 - margins.window / 2))
    assert margins.proofs == 8


def test_where_float32_overflows_a_proof_decides(rigorous, change, batch, monkeypatch):
    margins = ProvedMargins(rigorous, change, *batch, rtol=1e-6)
    margins(ALL, EPS)
    near = EPS * (1 + margins.window / 2)
    monkeypatch.setattr(change, "margins", lambda anchor, index, eps: torch.full((len(index), 4), -torch.inf).double())
    assert torch.equal(margins(ALL, near), rigorous.class_margins(*batch, near))
    assert margins.proofs == 12


def test_a_network_without_it_is_proved_each_time(batch):
    rigorous = RigorousNetwork(trace(small_model(5)).detach(), "float32-deployed")
    margins = ProvedMargins(rigorous, None, *batch, rtol=1e-6)
    near = EPS * (1 + 1e-6)
    for eps in (EPS, near):
        assert torch.equal(margins(ALL, eps), rigorous.class_margins(*batch, eps))
    assert margins.proofs == 12


@pytest.mark.parametrize("level", ["real-sound", "float32-deployed"])
def test_radii_pass_and_leave_little_room(level, batch):
    network = trace(small_model(5)).detach()
    rigorous, change = RigorousNetwork(network, level), BoxChange.of(network, level)
    start = rigorous.class_margins(*batch, 0.0)
    guess, exponent = torch.full((6,), 1e-3).double(), torch.full((6,), 1.2).double()
    radius, value, evaluations, proofs = prove(rigorous, change, *batch, start, guess, exponent, 1e-6)
    assert (radius > 0).all()
    assert (value > 0).all()
    assert rigorous.proves(*batch, radius).all()
    assert not rigorous.proves(*batch, radius * (1 + 2e-6)).any()
    assert proofs < evaluations if level == "real-sound" else proofs == evaluations
