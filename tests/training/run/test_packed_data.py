"""Packed training data: lossless, checked, and refused where damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acert_zoo.errors import InvalidInputError
from training.run.packed_data import images_of, pack, residuals, unpack

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
LABELS = np.arange(7) % 3


def test_a_constant_image_leaves_its_corner_alone() -> None:
    residual = residuals(np.full((1, 3, 3, 1), 200, dtype=np.uint8))
    assert residual[0, 0].tolist() == [[200, 0, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_differences_are_undone_exactly(channels: int) -> None:
    images = IMAGES[..., :channels]
    assert np.array_equal(images_of(residuals(images)), images)


def test_what_was_packed_is_unpacked_once(tmp_path: Path) -> None:
    paths = pack(IMAGES, LABELS, tmp_path / "packed")
    assert [path.name for path in paths] == ["packed-0.bz2", "packed-1.bz2", "packed.json"]
    unpack(tmp_path / "packed", tmp_path / "data")
    assert np.array_equal(np.load(tmp_path / "data" / "train_images.npy"), IMAGES)
    assert np.array_equal(np.load(tmp_path / "data" / "train_labels.npy"), LABELS)
    paths[0].unlink()
    unpack(tmp_path / "packed", tmp_path / "data")  # is there
    with pytest.raises(InvalidInputError, match=r"packed-0\.bz2"):
        unpack(tmp_path / "packed", tmp_path / "other")


def test_damage_is_refused(tmp_path: Path) -> None:
    first, second, _ = pack(IMAGES, LABELS, tmp_path)
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInputError, match="cannot be read"):
        unpack(tmp_path, tmp_path / "data")
    pack(255 - IMAGES, LABELS, tmp_path / "other")
    first.write_bytes((tmp_path / "other" / first.name).read_bytes())
    second.write_bytes((tmp_path / "other" / second.name).read_bytes())
    with pytest.raises(InvalidInputError, match="are not those that were packed"):
        unpack(tmp_path, tmp_path / "data")
    assert not (tmp_path / "data" / "train_images.npy").exists()
