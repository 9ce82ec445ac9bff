"""Certified radii of cascades: by hand, brute force in the certified balls, and wrong formulas that it catches.

Also tested here: cascades/member_checks.py.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from acert_zoo import Cascade, certify
from acert_zoo.attacks.adversarial_check import AdversarialCheck
from acert_zoo.attacks.exact_box import attack_box, inside
from acert_zoo.attacks.pgd import float_neighbours, random_corners, random_points
from acert_zoo.cascades.certificate import CascadeProver
from acert_zoo.cascades.member_checks import MemberChecks
from tests.support.attack import lively_model, random_images
from tests.support.cascade import certified, pixel, threshold


def close(a: list[float], b: list[float]) -> bool:
    return all(x <= y + 1e-7 and x >= y * (1 - 1e-3) - 1e-7 for x, y in zip(a, b, strict=True))


def test_two_members_by_hand():
    # Member 0 changes its answer at 1/2, member 1 at 1/4 (closer); the gate is 1/8.
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    images = pixel(0.9, 0.5625, 0.4375, 0.3125, 0.125)
    answers, route, radius = certified(cascade, images)
    assert answers == [1, 1, 1, 0, 0]
    assert route == [0, 1, 1, 0, 0]
    # 0.9: open, r_0 = 0.4, r_1 = 0.65 agrees: min(0.4, max(0.65, 0.275)) = 0.4, the true radius of this answer or less
    # 0.5625: closed, r_0 = 0.0625 agrees: min(max(0.0625, 0.125), 0.3125) = 0.125
    # 0.4375: closed, r_0 = 0.0625 for answer 0: min(0.125 - 0.0625, 0.1875) = 0.0625
    # 0.3125: open, r_0 = 0.1875; member 1 disagrees: o_0 = 0.0625
    # 0.125: open, r_0 = 0.375, r_1 = 0.125 agrees: min(0.375, max(0.125, 0.25)) = 0.25
    assert close(radius, [0.4, 0.125, 0.0625, 0.0625, 0.25])


def test_three_members_by_hand():
    cascade = Cascade([threshold(0.5), threshold(0.375), threshold(0.25)], ["1/4", "1/16"]).eval()
    answers, route, radius = certified(cascade, pixel(0.46875, 0.3125))
    # 0.46875: r_0 = 0.03125 answers 0, closed, t_0 = 0.25 - 0.03125; r_1 = 0.09375 answers 1, open, o_1 = 0.03125
    #   member 2 agrees, t_2 = 0.21875: rho = min(0.21875, 0.09375, 0.21875)
    # 0.3125: r_0 = 0.1875 answers 0, closed; r_1 = 0.0625 = the gate: closed by rounding; member 2 answers 1
    assert (answers, route) == ([1, 1], [1, 2])
    assert close(radius[:1], [0.09375])
    assert radius[1] < 1e-6


def test_certified_radii_of_one_pixel_cascades_are_near_the_true_ones_and_never_above():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    grid = torch.arange(0, 513, dtype=torch.float32).view(-1, 1, 1, 1) / 512
    result = certify(cascade, grid)
    answers = result.prediction
    for i, radius in enumerate(result.radius.tolist()):
        other = (answers != answers[i]).nonzero().flatten()
        nearest = (grid[other] - grid[i]).abs().min().item()
        assert radius < nearest or radius == 0
    assert (result.radius > 0.01).float().mean() > 0.8


def random_member(generator: torch.Generator, pixels: int) -> nn.Sequential:
    width = 5
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        middle = torch.full((1, 1, 1, pixels), 0.5)
        model[3].bias -= model(middle).flatten()  # all classes near each other in the middle
    return model.eval()


def violations(seed: int, stages: int, pixels: int, rounding: str) -> int:
    """Certifies a random cascade and counts the points of the certified balls that get another answer."""
    generator = torch.Generator().manual_seed(seed)
    members = [random_member(generator, pixels) for _ in range(stages)]
    gates = [float(g) for g in 10 ** (-2 * torch.rand(stages - 1, generator=generator) - 0.7)]
    cascade = Cascade(members, gates).eval()
    images = torch.rand(12, 1, 1, pixels, generator=generator)
    result = certify(cascade, images, rounding=rounding)
    # at real-sound the last member's own radius is about real arithmetic, which the check knows
    check, count = AdversarialCheck(cascade, rounding == "float32-deployed"), 0
    box = attack_box(images, result.radius)
    for _ in range(10):
        corners = random_corners(box, generator)
        for points in (corners, random_points(box, generator), float_neighbours(corners, box, generator)):
            assert bool(inside(points, images, result.radius).all())
            changed = check.predict(points, result.prediction) != result.prediction
            count += int((changed & (result.radius > 0)).sum())
    return count


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 3), st.sampled_from(["real-sound", "float32-deployed"]))
def test_no_point_of_a_certified_ball_gets_another_answer(seed, stages, pixels, rounding):
    assert violations(seed, stages, pixels, rounding) == 0


MUTATIONS = {
    "an open gate stays open as far as its member is certified": (
        "kept_open",
        lambda member, images, labels, proved: proved,
    ),
    "a closed gate stays closed as far as the gate reaches": (
        "kept_closed",
        lambda member, images, labels, proved: member.gate.expand_as(proved),
    ),
    "the last member is certified whatever it answers": (
        "proved",
        lambda member, images, labels, wanted, floor: member.search(images, labels, member.module(images)).radius,
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_brute_force_catches_a_wrong_formula(monkeypatch, name):
    attribute, wrong = MUTATIONS[name]
    monkeypatch.setattr(MemberChecks, attribute, wrong)
    monkeypatch.setattr(CascadeProver, "_accepted", lambda self, images, answers, rho: rho)
    assert sum(violations(seed, 2, 1, "real-sound") for seed in range(8)) > 0


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([2.0**20, 2.0**30, 2.0**60]))
def test_members_that_amplify_rounding_are_never_certified_wrongly(seed, large):
    """A large bias is added and taken away again: float32 labels near the threshold are noise."""
    generator = torch.Generator().manual_seed(seed)
    first = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        first[1].weight.fill_(1.0)
        first[1].bias.fill_(large)
        first[3].weight.copy_(torch.tensor([[0.0], [1.0]]))
        first[3].bias.copy_(torch.tensor([0.0, -large - 0.5]))
    cascade = Cascade([first, threshold(0.25)], ["1/64"]).eval()
    images = pixel(*torch.rand(40, generator=generator).tolist())
    result = certify(cascade, images)
    for points in [images, *(images + d for d in torch.linspace(-0.3, 0.3, 61))]:
        points = points.clamp(0, 1)
        near = inside(points, images, result.radius).flatten()
        changed = cascade(points).argmax(1) != result.prediction
        assert not bool((changed & near & (result.radius > 0)).any())


def test_answers_do_not_depend_on_the_batch_where_a_radius_is_certified():
    members = [lively_model(0), lively_model(1)]
    images = random_images(64)
    cascade = Cascade(members, [float(certify(members[0], images).radius.median())]).eval()
    result = certify(cascade, images)
    for size in (1, 7, 64):
        answers = torch.cat([cascade(part).argmax(1) for part in images.split(size)])
        assert torch.equal(answers[result.radius > 0], result.prediction[result.radius > 0])


def test_the_prover_refuses_more_than_is_true():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    images, answers = pixel(0.9, 0.5625, 0.4375, 0.3125), torch.tensor([1, 1, 1, 0])
    radius = torch.tensor([0.4, 0.125, 0.0625, 0.0625], dtype=torch.float64)
    prover = cascade.prover()
    assert prover.proves(images, answers, radius * (1 - 1e-3)).tolist() == [True] * 4
    assert prover.proves(images, answers, radius * (1 + 1e-3)).tolist() == [False] * 4
    assert prover.proves(images, 1 - answers, radius * 0.5).tolist() == [False] * 4


def test_without_float32_terms_an_open_gate_is_not_claimed_to_stay_open(monkeypatch):
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    _, _, radius = certified(cascade, pixel(0.9, 0.3125))
    assert close(radius[:1], [0.4])  # both members agree there
    assert radius[1] == 0.0  # member 1 disagrees, and nothing shows that it is not asked


def test_any_module_may_be_the_last_member():
    last = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.GELU()).eval()
    with torch.no_grad():
        last[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        last[1].bias.copy_(torch.tensor([0.0, 0.25]))
    cascade = Cascade([threshold(0.5), last], ["1/8"]).eval()
    answers, route, radius = certified(cascade, pixel(0.9, 0.4))
    assert (answers, route) == ([1, 1], [0, 1])
    assert close(radius[:1], [0.275])  # o_0 = 0.4 - 0.125
    assert radius[1] == 0.0


def test_wrong_answers_get_radius_zero():
    cascade = Cascade([threshold(0.5), threshold(0.25)], ["1/8"]).eval()
    result = certify(cascade, pixel(0.9, 0.9), torch.tensor([1, 0]))
    assert result.radius[0] > 0
    assert result.radius[1] == 0
    assert result.accuracy == 0.5
