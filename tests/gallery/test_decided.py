"""Stored verdicts of complete verification as the gallery reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import InvalidInputError
from acert_zoo.gallery.decided import read_decided
from acert_zoo.gallery.eps_grid import eps_grid
from acert_zoo.gallery.pages import decided_shares
from acert_zoo.gallery.tradeoff import decided_point

RADII = np.array([0.0, 0.2, 0.3, 0.0])
ENTRY = {
    "eps": "0.1",
    "n": 4,
    "budget_seconds": 15.0,
    "counts": {"misclassified": 1, "refuted": 0, "robust": 2, "undecided": 1},
    "proved_by": {"ibp": 1, "crown": 0, "branch-and-bound": 1},
    "seconds_per_image": 0.5,
}


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "it.v1.decided.json"
    path.write_text(json.dumps({"weights_sha256": "a" * 64, "decided": entries}))
    return path


def test_what_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, {**ENTRY, "eps": "0.2"}, ENTRY)
    first, second = read_decided(path, "a" * 64, RADII)
    assert (first.eps, second.eps) == ("0.1", "0.2")
    assert (first.correct, first.robust, first.unbroken) == (3, 2, 3)


def test_nothing_is_read_of_other_weights_or_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_decided(tmp_path / "none.json", "a" * 64, RADII) == ()
    assert read_decided(write(tmp_path, ENTRY), "b" * 64, RADII) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 5}, "do not add up"),
        ({"proved_by": {"ibp": 3}}, "do not add up"),
        ({"counts": {"misclassified": 2, "refuted": 1, "robust": 1, "undecided": 0}, "proved_by": {"ibp": 1}}, "2 are"),
        ({"counts": {}}, "cannot be read"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_decided(write(tmp_path, {**ENTRY, **changes}), "a" * 64, RADII)


def test_figures_by_hand(tmp_path: Path) -> None:
    (decided,) = read_decided(write(tmp_path, ENTRY), "a" * 64, RADII)
    rows = {row["title"]: (row["count"], row["share"]) for row in decided_shares(decided)}
    assert rows == {
        "right without any change": (3, "75.00"),
        "proved robust by IBP": (1, "25.00"),
        "… or by CROWN": (1, "25.00"),
        "… or by branch and bound": (2, "50.00"),
        "not broken by any attack": (3, "75.00"),
        "undecided": (1, "25.00"),
    }
    grid = eps_grid(dataset_info("mnist"))
    point = decided_point(decided, grid)
    assert grid.text(point["stop"] * grid.step) == "0.1"
    assert (point["n"], point["correct"], point["certified"], point["unbroken"]) == (4, 3, 2, 3)
