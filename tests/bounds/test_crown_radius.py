"""Radii from auto-LiRPA's bounds: what the search claims, its limits, and the labels of what it finds.

Also tested here: bounds/auto_lirpa_cost.py.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import acert_zoo
from acert_zoo import attack
from acert_zoo.bounds import crown_radius
from acert_zoo.bounds.auto_lirpa import LirpaBounds
from acert_zoo.bounds.auto_lirpa_cost import crown_cost
from acert_zoo.bounds.crown_radius import certified_radius_lirpa
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.bounds.rigorous_crown import rigorous_check
from acert_zoo.bounds.root_finding import most_evaluations
from acert_zoo.certificates.file import read_file
from acert_zoo.certificates.verify import verify_file
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.rounding import CROWN_METHODS
from tests.support.models import SHAPE, small_model


@pytest.fixture(scope="module")
def floor(network: Network, batch: tuple[Tensor, Tensor]) -> Tensor:
    return certified_radius(network, *batch).radius


def test_the_best_radii_are_at_least_ibps_and_rigorously_proved(network: Network, batch: tuple[Tensor, Tensor], floor):
    result = certified_radius_lirpa(network, *batch, method="best", floor=floor)
    assert bool((result.radius >= floor).all())
    assert bool((result.radius > 1.02 * floor).any())
    for i, (method, rounding) in enumerate(zip(result.method, result.rounding, strict=True)):
        if method == "ibp":
            assert (rounding, float(result.radius[i])) == ("", float(floor[i]))
            continue
        assert method in CROWN_METHODS
        assert rounding == "real-sound"
        check = rigorous_check(network, method)
        assert check.proves(batch[0][i : i + 1], batch[1][i : i + 1], result.radius[i]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_the_rigorous_check_radii_are_labelled_by_their_arithmetic(network, batch, dtype):
    images, labels = batch[0][:1], batch[1][:1]
    result = certified_radius_lirpa(network, images, labels, method="crown-ibp", dtype=dtype, rigorous=False)
    assert result.rounding == [str(dtype).removeprefix("torch.")]
    value = LirpaBounds(network, SHAPE, dtype).margins(images, labels, result.radius, "crown-ibp")
    assert value.item() > 0  # the very eps that is returned was proved
    assert value.item() == pytest.approx(result.margin.item(), rel=1e-4)


def test_a_radius_that_the_rigorous_check_never_confirms_keeps_its_label(network, batch, monkeypatch):
    monkeypatch.setattr(crown_radius.RigorousCrown, "margins", lambda self, x, y, e, deadline: torch.tensor([-1.0]))
    result = certified_radius_lirpa(network, batch[0][:1], batch[1][:1], method="crown-ibp")
    assert result.rounding == ["float32"]
    assert result.radius.item() > 0


def test_only_evaluated_points_are_returned_where_the_bound_is_not_monotone():
    """Proved on [0, 0.1] and [0.3, 0.4] only: whatever the search makes of it, its radius lies in one of them."""
    seen: dict[float, float] = {}

    def evaluate(eps: float) -> float:
        seen[eps] = 1.0 if eps <= 0.1 or 0.3 <= eps <= 0.4 else -1.0
        return seen[eps]

    for start in (0.0, 0.02, 0.09, 0.29):
        seen.clear()
        crown_radius.climb(evaluate, start)
        proved = [e for e, v in seen.items() if v > 0]
        assert all(e <= 0.1 or 0.3 <= e <= 0.4 for e in proved)
        assert len(seen) < 60


def test_the_search_finds_a_root_to_its_tolerance_and_stops_at_one():
    for root in (1e-5, 0.013, 0.4):
        proved = []
        crown_radius.climb(lambda e, r=root, p=proved: (p.append(e) if e < r else None) or r - e, 0.0)
        assert root * (1 - 2 * crown_radius.RTOL) < max(proved) < root
    visited: list[float] = []
    crown_radius.climb(lambda e: visited.append(e) or 1.0, 0.3)
    assert max(visited) == 1.0


def test_a_search_with_nothing_to_gain_ends_after_two_points():
    visited: list[float] = []
    crown_radius.climb(lambda e: visited.append(e) or 0.02 - e, 0.02)
    assert visited == [0.02 * 1.15, 0.02 * (1 + crown_radius.RTOL)]
    for root in (0.0201, 0.021, 0.0225):  # something to gain, less than the first step
        visited.clear()
        crown_radius.climb(lambda e, r=root: visited.append(e) or r - e, 0.02)
        assert root * (1 - crown_radius.RTOL) <= max(e for e in visited if e < root)
        assert len(visited) < 9


def test_limits_leave_the_best_radius_so_far(network: Network, batch: tuple[Tensor, Tensor], floor: Tensor):
    little = certified_radius_lirpa(network, *batch, method="crown", floor=floor, memory=10.0)
    assert torch.equal(little.radius, floor)
    assert little.evaluations == 0
    assert all("MiB" in note for note in little.note)
    short = certified_radius_lirpa(network, *batch, method="best", floor=floor, budget=1e-9)
    assert torch.equal(short.radius, floor)
    assert short.method == ["ibp"] * 3
    assert all("time budget" in note for note in short.note)


def test_the_rigorous_check_keeps_to_the_budget(network: Network, batch: tuple[Tensor, Tensor], monkeypatch):
    """A check that time runs out in leaves the radius with auto-LiRPA's label; the next image reckons with its cost."""
    for method in ("crown", "alpha-crown"):
        with pytest.raises(TimeoutError):
            rigorous_check(network, method).margins(batch[0][:1], batch[1][:1], 0.05, deadline=0.0)
    monkeypatch.setattr(crown_radius.RigorousCrown, "tighten", lambda *_, deadline: (_ for _ in ()).throw(TimeoutError))
    result = certified_radius_lirpa(network, batch[0][:1], batch[1][:1], method="crown")
    assert result.radius.item() > 0
    assert (result.rounding, result.proofs) == (["float32"], 0)
    assert "no time was left for the rigorous check of crown" in result.note[0]
    speed = crown_radius._Speed()
    speed.learn("proof by crown", 1.0, 1e6)
    monkeypatch.setattr(crown_radius, "_Speed", lambda: speed)
    none = certified_radius_lirpa(network, batch[0][:1], batch[1][:1], method="crown")
    assert (none.evaluations, none.radius.item()) == (0, 0.0)
    assert "time budget" in none.note[0]


def test_a_failure_inside_auto_lirpa_leaves_the_best_radius_so_far(network, batch, floor, monkeypatch):
    def margins(self, images, labels, eps, method):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(LirpaBounds, "margins", margins)
    result = certified_radius_lirpa(network, *batch, method="crown", floor=floor)
    assert torch.equal(result.radius, floor)
    assert all("auto-LiRPA failed in crown" in note and "shape mismatch" in note for note in result.note)


def test_the_cost_grows_with_the_radius_and_the_method(network: Network, batch: tuple[Tensor, Tensor]):
    costs = [crown_cost(network, batch[0], e, m) for m in CROWN_METHODS for e in (0.01, 0.1)]
    work = [c.multiplications for c in costs]
    assert work[0] == work[1]  # crown-ibp: one pass, whatever is open
    assert work[1] < work[2] < work[3] < work[5]
    assert all(c.bytes > 0 for c in costs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "crwon"}, UnknownNameError, "did you mean crown"),
        ({"budget": 0.0}, InvalidInputError, "positive"),
        ({"memory": float("nan")}, InvalidInputError, "positive"),
        ({"dtype": torch.float16}, InvalidInputError, "float16"),
    ],
)
def test_bad_arguments(network, batch, arguments, error, message):
    with pytest.raises(error, match=message):
        certified_radius_lirpa(network, *batch, **arguments)


def test_certify_records_method_and_rounding(batch: tuple[Tensor, Tensor]):
    torch.manual_seed(2)
    model = architectures.build(
        "cnn", input_shape=SHAPE, num_classes=4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), convs=[(4, 2)], hidden=8
    ).eval()
    labels = model(batch[0]).argmax(1)
    interval = acert_zoo.certify(model, batch[0], labels)
    tight = acert_zoo.certify(model, batch[0], labels, method="crown-ibp")
    assert bool((tight.radius >= interval.radius).all())
    assert set(tight.method) <= {"ibp", "crown-ibp"}
    assert set(tight.roundings) == {"real-sound"}
    assert tight.rounding == "real-sound"


@pytest.mark.parametrize(("method", "size", "second_stride"), [("crown", 12, True), ("crown-ibp", 32, False)])
def test_crown_on_cnn7(method: str, size: int, second_stride: bool):
    """The paper's architecture, two channels wide instead of 64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = architectures.build(
            "cnn7", input_shape=(3, size, size), num_classes=10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), width=2,
            hidden=16, second_stride=second_stride,
        ).eval()  # fmt: skip
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    interval, tight = acert_zoo.certify(model, images), acert_zoo.certify(model, images, method=method)
    assert bool((tight.radius > 1.2 * interval.radius).all())
    assert (set(tight.method), set(tight.roundings)) == ({method}, {"real-sound"})
    found = attack(model, images, tight.label, 0.999 * tight.radius, steps=10, restarts=2)
    assert not found.success.any()


def test_verify_proves_crown_radii_again_and_refuses_larger_ones(tmp_path):
    model = small_model()
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(5))
    found = acert_zoo.certify(model, images, method="crown-ibp", out=tmp_path / "c.jsonl")
    assert "crown-ibp" in found.method
    assert (found.rounding, read_file(tmp_path / "c.jsonl").header.rounding) == ("real-sound", "real-sound")
    report = verify_file(tmp_path / "c.jsonl", model=model, images=images)
    assert report.ok
    raised = dataclasses.replace(found, radius=found.radius * 1.01)
    raised.save(tmp_path / "raised.jsonl")
    report = verify_file(tmp_path / "raised.jsonl", model=model, images=images)
    assert report.counts["failed"] > 0


@pytest.mark.parametrize("name", ["cifar10_kappa025", "mnist_kappa000"])
def test_crown_methods_on_an_image_of_a_bundled_model(name: str):
    model = acert_zoo.load_model(name)
    images, labels = acert_zoo.sample_data(name.split("_")[0], n=2)
    interval = acert_zoo.certify(model, images, labels)
    assert bool((interval.radius > 0).any())
    for method in ("crown-ibp", "crown"):
        assert bool((acert_zoo.certify(model, images, labels, method=method).radius >= interval.radius).all())


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(
        st.one_of(st.floats(-1, 1), st.sampled_from([math.nan, math.inf, -math.inf, 5e-324, -4e-7])), min_size=1
    ),
    start=st.one_of(st.just(0.0), st.floats(1e-12, 1.0)),
    rtol=st.sampled_from([crown_radius.RTOL, crown_radius.COARSE_RTOL]),
)
def test_a_climb_ends_within_its_bound_whatever_it_meets(values: list[float], start: float, rtol: float) -> None:
    visited: list[float] = []

    def evaluate(eps: float) -> float:
        visited.append(eps)
        return values[len(visited) % len(values)]

    crown_radius.climb(evaluate, start, rtol)
    assert len(visited) <= most_evaluations(rtol, crown_radius.LEAST) <= 24
    assert all(crown_radius.LEAST <= eps <= 1 for eps in visited)
