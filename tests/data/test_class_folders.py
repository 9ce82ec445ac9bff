"""Data sets as folders of images: read once into a cache, again when they change, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acert_zoo.data import registration
from acert_zoo.data.datasets import load_split
from acert_zoo.data.registration import register_dataset
from acert_zoo.errors import DatasetNotFoundError

REGISTRATION = """
name = "shades"
input_shape = [1, 2, 2]
classes = ["dark", "light"]
mean = [0.5]
std = [0.25]
eps_max = "0.1"
validation = 0.5
"""


@pytest.fixture
def shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six training images and two test images of 2x2 pixels, the shade of each its own."""
    monkeypatch.setattr(registration, "_own", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "shades"
    for name, shade in (
        ("train/dark/1.png", 10),
        ("train/dark/2.png", 11),
        ("train/dark/more/3.bmp", 12),
        ("train/light/1.png", 200),
        ("train/light/2.png", 201),
        ("train/light/3.png", 202),
        ("test/dark/1.png", 20),
        ("test/light/1.png", 220),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), shade).save(root / name)
    (root / "dataset.toml").write_text(REGISTRATION)
    register_dataset(root / "dataset.toml")
    return root


def test_folders_are_a_data_set(shades: Path) -> None:
    images, labels = load_split("shades", "test")
    assert images.shape == (2, 2, 2, 1)
    assert images[:, 0, 0, 0].tolist() == [20, 220]
    assert labels.tolist() == [0, 1]
    train, val = load_split("shades", "train"), load_split("shades", "val")
    assert (len(train[0]), len(val[0])) == (3, 3)
    both = np.concatenate([train[0], val[0]])[:, 0, 0, 0]
    assert sorted(both.tolist()) == [10, 11, 12, 200, 201, 202]
    assert np.array_equal(np.concatenate([train[1], val[1]]), (both > 100).astype(int))
    assert not list(shades.rglob("*.npy")), "the data themselves are not written to"


def test_a_changed_folder_is_read_anew(shades: Path) -> None:
    load_split("shades", "test")
    Image.new("L", (2, 2), 77).save(shades / "test" / "light" / "2.png")
    assert load_split("shades", "test")[0][:, 0, 0, 0].tolist() == [20, 220, 77]


def test_folders_that_do_not_fit_are_refused(shades: Path) -> None:
    Image.new("L", (3, 2), 1).save(shades / "test" / "dark" / "wide.png")
    with pytest.raises(DatasetNotFoundError, match=r"wide\.png.*resize = true in the registration"):
        load_split("shades", "test")
    (shades / "test" / "dark" / "wide.png").unlink()
    deep = shades / "test" / "dark" / "deep.png"
    Image.fromarray(np.full((2, 2), 1000, dtype=np.uint16)).save(deep)
    with pytest.raises(DatasetNotFoundError, match="16 bits"):
        load_split("shades", "test")
    deep.unlink()
    (shades / "test" / "dark").rename(shades / "test" / "drak")
    with pytest.raises(DatasetNotFoundError, match="did you mean dark"):
        load_split("shades", "test")
    (shades / "test" / "light").rename(shades / "test" / "bright")
    with pytest.raises(DatasetNotFoundError, match=r"named like a class \(dark, light, ...\); it has 'bright', 'drak'"):
        load_split("shades", "test")
    (shades / "train").rename(shades / "training")
    with pytest.raises(DatasetNotFoundError, match="folders train/<class> and test/<class>"):
        load_split("shades", "train")


def test_resize_makes_them_fit(shades: Path) -> None:
    Image.new("L", (30, 20), 33).save(shades / "test" / "dark" / "wide.png")
    registration._own.clear()
    (shades / "dataset.toml").write_text(REGISTRATION + "resize = true\n")
    register_dataset(shades / "dataset.toml")
    assert load_split("shades", "test")[0][1].tolist() == [[[33], [33]], [[33], [33]]]
