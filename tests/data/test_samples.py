"""The bundled images: balanced, lossless, and exactly those of the data sets they name."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import acert_zoo
from acert_zoo.data import datasets, samples
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnknownNameError

SETS = {"cifar10": 100, "mnist": 100, "tinyimagenet": 20}


@pytest.fixture(scope="module")
def make_samples() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "make_samples.py"
    spec = importlib.util.spec_from_file_location("make_samples", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def test_the_sets_that_are_there() -> None:
    assert samples.sample_sets() == sorted(SETS)


@pytest.mark.parametrize("name", SETS)
def test_shapes_values_and_labels(name: str) -> None:
    images, labels = acert_zoo.sample_data(name)
    info = datasets.dataset_info(name)
    assert images.shape == (SETS[name], *info.input_shape)
    assert images.dtype == torch.float32
    assert (labels.dtype, labels.shape) == (torch.int64, (SETS[name],))
    assert 0 <= images.min() < 0.1 < 0.9 < images.max() <= 1
    levels = torch.arange(256, dtype=torch.float32) / 255
    assert torch.isin(images, levels).all(), "every pixel is exactly fl(k / 255)"
    assert len({image.numpy().tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_any_first_images_are_balanced(name: str) -> None:
    _, labels = acert_zoo.sample_data(name)
    for n in range(1, len(labels) + 1):
        counts = labels[:n].bincount(minlength=10)
        assert counts.max() - counts.min() <= 1


def test_tiny_imagenet_has_distinct_classes() -> None:
    _, labels = acert_zoo.sample_data("tinyimagenet")
    assert len(labels.unique()) == 20
    info = samples.sample_info("tinyimagenet")
    assert len(info.classes) == 200
    assert info.classes[0] == "goldfish"
    assert "non-commercial" in info.license
    assert "Tiny ImageNet" in info.source


def test_n_takes_the_first() -> None:
    images, labels = acert_zoo.sample_data("cifar10")
    for n in (0, 1, 7, 100):
        some = acert_zoo.sample_data("cifar10", n)
        assert torch.equal(some[0], images[:n])
        assert torch.equal(some[1], labels[:n])


@pytest.mark.parametrize("n", [-1, 101, 2.5, "3", True])
def test_n_that_cannot_be(n: object) -> None:
    with pytest.raises(InvalidInputError, match="0 to 100 can be asked for"):
        acert_zoo.sample_data("cifar10", n)  # type: ignore[arg-type]


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cifar10"):
        acert_zoo.sample_data("cifar")


@pytest.mark.parametrize("name", SETS)
def test_the_files_belong_together(name: str) -> None:
    info = samples.sample_info(name)
    assert info.dataset == name
    assert len(info.indices) == len(set(info.indices)) == len(info.labels) == SETS[name]
    assert len(info.classes) == datasets.dataset_info(name).num_classes
    readme = (samples.FOLDER / "README.md").read_text()
    assert f"`{name}.png`" in readme
    assert info.tile == (*datasets.dataset_info(name).input_shape[1:], datasets.dataset_info(name).input_shape[0])


def test_the_files_are_small() -> None:
    assert sum(path.stat().st_size for path in samples.FOLDER.iterdir()) < 600_000


@pytest.mark.parametrize("name", SETS)
def test_they_equal_the_test_set(name: str, data_root: Path) -> None:
    images, labels = datasets.load_split(name, "test", data_root)
    info = samples.sample_info(name)
    ours, our_labels = samples.sample_arrays(name)
    indices = list(info.indices)
    assert np.array_equal(ours, images[indices])
    assert np.array_equal(our_labels, labels[indices])
    assert not set(indices) & set(datasets.inexact_test_images(name, data_root))


@pytest.mark.parametrize("name", SETS)
def test_the_script_makes_them_again(name: str, data_root: Path, tmp_path: Path, make_samples: ModuleType) -> None:
    from PIL import Image

    make_samples.make(name, str(data_root), tmp_path)
    assert (tmp_path / f"{name}.json").read_text() == (samples.FOLDER / f"{name}.json").read_text()
    with Image.open(tmp_path / f"{name}.png") as new, Image.open(samples.FOLDER / f"{name}.png") as shipped:
        assert np.array_equal(np.asarray(new), np.asarray(shipped))


def test_inexact_images_are_passed_over_by_hand(make_samples: ModuleType) -> None:
    labels = np.array([1, 0, 0, 1, 0, 1])
    assert make_samples.choose(labels, range(2), 2, []) == [1, 0, 2, 3]
    assert make_samples.choose(labels, range(2), 2, [1, 3]) == [2, 0, 4, 5]


def test_json_is_plain_text() -> None:
    for name in SETS:
        text = (samples.FOLDER / f"{name}.json").read_text()
        assert json.loads(text)["tile"]
        assert "/work" not in text


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torch.hub, where torch, numpy and safetensors are enough to load and certify."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match="pip install pillow"):
        acert_zoo.sample_data("cifar10", 1)
