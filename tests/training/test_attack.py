"""Attacked radii of a test set: by hand on a network whose boundary is known, and what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.attack import Attacked, attack_ladder, store_attacked
from training.results.zoo_folder import ZooFolder


class OnePixel(nn.Module):
    """Class 0 where the pixel is above 1/2, class 1 below it."""

    def forward(self, x: Tensor) -> Tensor:
        pixel = x.flatten(1)
        return torch.cat([pixel - 0.5, 0.5 - pixel], 1)


def test_bounds_by_hand() -> None:
    images = torch.tensor([0.7, 0.95, 0.4, 0.55]).view(4, 1, 1, 1)
    labels = torch.zeros(4, dtype=torch.int64)
    certified = torch.tensor([0.1, 0.1, 0.0, 0.02], dtype=torch.float64)
    found = attack_ladder(OnePixel().eval(), images, labels, certified, ("0.1", "0.25"))
    assert 0.2 <= found[0] <= 0.25 - (0.25 - 0.1) / 8 + 1e-6  # sought at 0.25, then halved three times down to 0.1
    assert found[1] == torch.inf  # its boundary is 0.45 away
    assert found[2] == 0  # misclassified as it is
    assert 0.05 <= found[3] <= 0.1
    nowhere = torch.tensor([0.26, 0.3, 0.3, 0.3], dtype=torch.float64)
    assert attack_ladder(OnePixel().eval(), images, labels, nowhere, ("0.1", "0.25")).isinf().all()  # nothing to seek


def test_what_is_stored(tmp_path: Path) -> None:
    radius = np.array([0.0, np.inf, 0.1, 0.3])
    attacked = Attacked("it", 2, "a" * 64, "mnist", radius, ("0.05", "0.2"))
    store_attacked(ZooFolder(tmp_path), attacked)
    document = json.loads((tmp_path / "evaluations" / "it.v2.attack.json").read_text())
    assert document["attacked_accuracy"] == [{"eps": "0.05", "value": 75.0}, {"eps": "0.2", "value": 50.0}]
    assert (document["n"], document["weights_sha256"]) == (4, "a" * 64)
    np.testing.assert_array_equal(np.load(tmp_path / "evaluations" / "it.v2.attacked.npy"), radius)


def test_an_image_broken_at_exactly_eps_does_not_count() -> None:
    attacked = Attacked("it", 1, "a" * 64, "mnist", np.array([0.25, np.nextafter(0.25, 1)]), ())
    assert attacked.accuracy("0.25") == pytest.approx(50.0)
