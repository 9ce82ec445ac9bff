"""Stored evaluations as the gallery reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from acert_zoo.errors import InvalidInputError
from acert_zoo.gallery.evaluations import read_evaluation, wilson_interval
from acert_zoo.zoo.model_info import ModelInfo

INFO = ModelInfo(name="it", arch="cnn", arch_kwargs={}, sha256="a" * 64)


def write(folder: Path, radii: np.ndarray, **changes: object) -> None:
    document = {"weights_sha256": "a" * 64, "n": 4, "environment": {"seconds": 2.5}, **changes}
    (folder / "it.v1.json").write_text(json.dumps(document))
    np.save(folder / "it.v1.radii.npy", radii)


def test_what_is_read(tmp_path: Path) -> None:
    write(tmp_path, np.array([0.0, 0.1, 0.4]), test_inexact=[2])
    stored = read_evaluation(tmp_path, INFO)
    assert (stored.total, stored.inexact, stored.seconds, stored.classes) == (4, 1, 2.5, ())
    assert stored.acr_percent("0.2") == pytest.approx(100 * (0 + 0.5 + 1) / 3)


@pytest.mark.parametrize(
    ("radii", "changes", "message"),
    [
        (np.array([0.1]), {"weights_sha256": "b" * 64}, "other weights"),
        (np.array([0.1], dtype=np.float32), {}, "float64"),
        (np.array([np.nan]), {}, "float64"),
        (np.array([1.5]), {}, r"\[0, 1\]"),
        (np.array([]), {}, "float64"),
    ],
)
def test_refusals(tmp_path: Path, radii: np.ndarray, changes: dict[str, object], message: str) -> None:
    write(tmp_path, radii, **changes)
    with pytest.raises(InvalidInputError, match=message):
        read_evaluation(tmp_path, INFO)


def test_a_missing_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="evaluation of it"):
        read_evaluation(tmp_path, INFO)


def test_wilson_interval() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611
    assert wilson_interval(81, 263) == pytest.approx((25.53, 36.62), abs=0.01)
    assert wilson_interval(10, 100) == pytest.approx((5.52, 17.44), abs=0.01)
    assert wilson_interval(0, 100) == pytest.approx((0, 100 * 3.8415 / 103.8415), abs=1e-3)  # up to z^2 / (n + z^2)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 16.11), abs=0.01)
    assert wilson_interval(20, 20)[1] == 100.0
    with pytest.raises(InvalidInputError):
        wilson_interval(3, 2)


def write_attack(folder: Path, distances: np.ndarray, **changes: object) -> None:
    (folder / "it.v1.attack.json").write_text(json.dumps({"weights_sha256": "a" * 64, **changes}))
    np.save(folder / "it.v1.attacked.npy", distances)


def test_a_stored_attack(tmp_path: Path) -> None:
    write(tmp_path, np.array([0.0, 0.1, 0.4]))
    assert read_evaluation(tmp_path, INFO).attacked is None
    write_attack(tmp_path, np.array([0.0, 0.2]))
    np.testing.assert_array_equal(read_evaluation(tmp_path, INFO).attacked, [0.0, 0.2])
    write_attack(tmp_path, np.array([0.0, 0.2]), weights_sha256="b" * 64)
    assert read_evaluation(tmp_path, INFO).attacked is None  # of weights that were replaced


@pytest.mark.parametrize(
    ("distances", "message"),
    [(np.array([0.0, 0.1]), "contradicts"), (np.zeros(4), "no float64"), (np.zeros(1, dtype=np.float32), "no float64")],
)
def test_a_stored_attack_is_refused(tmp_path: Path, distances: np.ndarray, message: str) -> None:
    write(tmp_path, np.array([0.0, 0.1, 0.4]))
    write_attack(tmp_path, distances)
    with pytest.raises(InvalidInputError, match=message):
        read_evaluation(tmp_path, INFO)
