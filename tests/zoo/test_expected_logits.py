"""Expected logits: the reference images by hand, and records that are none."""

from __future__ import annotations

from typing import Any

import pytest

from acert_zoo.errors import WeightsError
from acert_zoo.zoo.expected_logits import check_expected_logits, compute_expected_logits, reference_images
from tests.support.models import small_model


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"logits": []},
        {"logits": "text"},
        {"logits": [1.0, 2.0]},
        {"logits": [[1.0]], "images": 2},
        {"logits": [[float("inf")] * 4] * 2},
        {"logits": [[0.0] * 3] * 2},
        {"logits": [[0.0] * 4] * 2, "images": 10**9},
    ],
)
def test_expected_logits_that_are_none(bad: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="recorded logits"):
        check_expected_logits(small_model(), (3, 8, 8), bad, "x")


def test_reference_images_by_hand() -> None:
    """2654435761 mod 2^32 >> 24 = 158; twice that: 5308871522 - 4294967296 = 1013904226 >> 24 = 60."""
    pixels = reference_images((1, 1, 2), images=1).flatten().tolist()
    assert pixels == [pytest.approx(158 / 255), pytest.approx(60 / 255)]
    large = reference_images((3, 64, 64))
    assert (large.min().item(), large.max().item()) == (0, 1)
    model = small_model()
    check_expected_logits(model, (3, 8, 8), compute_expected_logits(model, (3, 8, 8)), "x")
