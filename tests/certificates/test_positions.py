"""Some of the certificates: positions, slices and masks, and what is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from acert_zoo.errors import InvalidInputError
from acert_zoo.rounding import weakest
from tests.support.certificates import certificates


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        (torch.tensor([-1]), [2]),
        (np.array([0, 2]), [0, 2]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.array([False, True, False]), [1]),
        ([], []),
        (slice(3, 9), []),
    ],
)
def test_some_of_the_certificates(index: Any, rows: list[int]) -> None:
    result = certificates([0.0, 0.1, 2 / 255])
    some = result[index]
    assert some.lines() == [result.lines()[i] for i in rows]
    assert (len(some), some.header.n) == (len(rows), len(rows))
    assert some.rounding == (weakest(some.roundings) if rows else result.rounding)


@pytest.mark.parametrize("index", ["0", True, 1.0, None, [True], torch.tensor(1.5), [0.5], torch.ones(2, 2).long()])
def test_what_is_no_index(index: Any) -> None:
    with pytest.raises(InvalidInputError, match="certificates are chosen by"):
        certificates([0.0, 0.1, 2 / 255])[index]
