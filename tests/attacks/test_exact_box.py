"""The exact box around an image: float32 pixels that lie in it, and exact distances."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from acert_zoo.attacks.exact_box import attack_box, distance, inside


def pixels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def exact_distance(a: Tensor, b: Tensor) -> Fraction:
    pairs = zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    return max(abs(Fraction(p) - Fraction(q)) for p, q in pairs)


def test_box_of_a_pixel_that_float32_cannot_move_by_a_small_radius():
    box = attack_box(pixels(1.0, 0.5, 0.0), torch.tensor([1e-9], dtype=torch.float64))
    assert box.lower.flatten().tolist() == [1.0, 0.5, 0.0]
    assert box.upper.flatten()[:2].tolist() == [1.0, 0.5]
    assert 0 < box.upper.flatten()[2].item() <= 1e-9


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6),
    st.one_of(st.floats(0, 1), st.floats(1e-300, 1e-6), st.sampled_from([2 / 255, 0.1, 2.0**-149])),
)
def test_box_is_the_largest_inside_the_exact_one(values, eps):
    images, radius = pixels(*values), torch.tensor([eps], dtype=torch.float64)
    box = attack_box(images, radius)
    for end, away in ((box.lower, -1.0), (box.upper, 2.0)):
        beyond = end.nextafter(torch.full_like(end, away))
        for x, e, b in zip(images.flatten().tolist(), end.flatten().tolist(), beyond.flatten().tolist(), strict=True):
            assert abs(Fraction(e) - Fraction(x)) <= Fraction(eps)
            assert 0 <= e <= 1
            assert not (0 <= b <= 1 and abs(Fraction(b) - Fraction(x)) <= Fraction(eps))


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)), min_size=1, max_size=5),
    st.floats(0, 1),
)
def test_inside_and_distance_agree_with_fractions(pairs, eps):
    points, images = pixels(*(a for a, _ in pairs)), pixels(*(b for _, b in pairs))
    true = exact_distance(points, images)
    got = distance(points, images).item()
    assert Fraction(got) >= true
    assert got == 0 or Fraction(math.nextafter(got, 0)) < true
    for radius in (eps, got, math.nextafter(got, 0.0)):
        within = bool(inside(points, images, torch.tensor([radius], dtype=torch.float64)).all())
        assert within == (true <= Fraction(radius))


def test_inside_where_the_difference_does_not_fit_a_float64():
    tiny = 2.0**-149
    points, images = pixels(1.0), pixels(tiny)  # |x' - x| = 1 - 2^-149, which rounds to 1
    assert bool(inside(points, images, torch.tensor([1.0], dtype=torch.float64)).all())
    assert not bool(inside(points, images, torch.tensor([math.nextafter(1.0, 0)], dtype=torch.float64)).all())
