"""Points that an attack starts from: corners, draws and float neighbours stay in the box."""

from __future__ import annotations

import torch

from acert_zoo.attacks.exact_box import Box, attack_box, inside
from acert_zoo.attacks.pgd import float_neighbours, random_corners, random_points


def test_corners_points_and_neighbours_stay_in_the_box():
    images = torch.rand(4, 3, 5, 5)
    eps = torch.tensor([1e-8, 1e-3, 0.1, 1.0], dtype=torch.float64)
    box, generator = attack_box(images, eps), torch.Generator().manual_seed(0)
    corners = random_corners(box, generator)
    assert bool(((corners == box.lower) | (corners == box.upper)).all())
    for points in (corners, random_points(box, generator), float_neighbours(corners, box, generator)):
        assert bool(inside(points, images, eps).all())
        assert points.dtype == torch.float32
    moved = float_neighbours(images, Box(torch.zeros_like(images), torch.ones_like(images)), generator)
    assert 0 < (moved - images).abs().max() < 1e-6
