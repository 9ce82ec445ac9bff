"""Data sets: splits, pixels, and the files that users have (NumPy, torchvision, tiny-imagenet-200).

Also tested here: data/sources.py, data/array_files.py.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acert_zoo.data import datasets
from acert_zoo.errors import DatasetNotFoundError, InvalidInputError, MissingDependencyError, UnknownNameError


@pytest.fixture(autouse=True)
def no_default_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment names no data; downloads would go to an empty cache (and are stopped in the tests)."""
    monkeypatch.delenv("ACERT_ZOO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make(root: Path, name: str = "cifar10", train: int = 5100, test: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Random data in the project's layout; train images carry their index in their first pixels."""
    generator = np.random.default_rng(1)
    channels, height, width = datasets.dataset_info(name).input_shape
    (root / name).mkdir(parents=True)
    for stem, n in (("train", train), ("test", test)):
        images = generator.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
        images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(n) % 256, np.arange(n) // 256
        labels = generator.integers(0, datasets.dataset_info(name).num_classes, n)
        np.save(root / name / f"{stem}_images.npy", images)
        np.save(root / name / f"{stem}_labels.npy", labels)
    return images, labels


def index_of(images: np.ndarray) -> np.ndarray:
    return images[:, 0, 0, 0].astype(int) + 256 * images[:, 0, 1, 0].astype(int)


def test_pixels_by_hand() -> None:
    images = np.array([[[[0], [51]], [[102], [255]]]], dtype=np.uint8)
    pixels = datasets.to_pixels(images)
    assert pixels.shape == (1, 1, 2, 2)
    expected = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]])
    assert torch.equal(pixels, expected)
    every = datasets.to_pixels(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)).flatten()
    assert torch.equal(every, torch.tensor([k / 255 for k in range(256)]))


def test_pixels_are_those_of_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert torch.equal(datasets.to_pixels(image[None])[0], transforms.ToTensor()(image))


def test_train_and_validation_share_the_training_set(tmp_path: Path) -> None:
    make(tmp_path)
    train, train_labels = datasets.load_split("cifar10", "train", tmp_path)
    val, val_labels = datasets.load_split("cifar10", "val", tmp_path)
    assert (len(train), len(val)) == (100, 5000)
    held_out = np.random.default_rng(0).permutation(5100)[-5000:]
    assert set(index_of(val)) == set(held_out)
    assert set(index_of(train)) == set(range(5100)) - set(held_out)
    labels = np.load(tmp_path / "cifar10" / "train_labels.npy")
    assert np.array_equal(train_labels, labels[index_of(train)])
    assert np.array_equal(val_labels, labels[index_of(val)])
    assert train.dtype == np.uint8
    assert train_labels.dtype == np.int64
    assert train.flags.writeable and not isinstance(train, np.memmap)  # noqa: PT018


def test_the_test_split_stays_on_disk(tmp_path: Path) -> None:
    images, labels = make(tmp_path)
    read, read_labels = datasets.load_split("cifar10", "test", tmp_path)
    assert isinstance(read, np.memmap)
    assert np.array_equal(read, images)
    assert np.array_equal(read_labels, labels)


def test_training_data_are_held_once(tmp_path: Path) -> None:
    make(tmp_path, train=20_000)
    tracemalloc.start()
    images, _ = datasets.load_split("cifar10", "train", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes + 10_000_000


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.setenv("ACERT_ZOO_DATA", str(tmp_path))
    assert len(datasets.load_split("cifar10", "test")[0]) == 30
    assert datasets.inexact_test_images("cifar10") == []
    (tmp_path / "cifar10" / "meta.json").write_text(json.dumps({"classes": ["a"], "test_inexact": [3, 7]}))
    assert datasets.inexact_test_images("cifar10") == [3, 7]
    assert datasets.read_meta("cifar10")["classes"] == ["a"]


def test_unknown_names_and_splits(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean cifar10"):
        datasets.load_split("cifar", "test", tmp_path)
    with pytest.raises(InvalidInputError, match="known: train, val, test"):
        datasets.load_split("cifar10", "validation", tmp_path)


def test_a_folder_without_the_data_says_how_to_get_it(tmp_path: Path) -> None:
    message = r"'cifar10' is not in .*cifar-10-batches-py.*download=True.*--data-root or \$ACERT_ZOO_DATA"
    with pytest.raises(DatasetNotFoundError, match=message):
        datasets.load_split("cifar10", "test", tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"tiny-imagenet-200 is there.*http://cs231n.*non-commercial"):
        datasets.load_split("tinyimagenet", "test", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, int), "float32"),
        (np.zeros((2, 3, 32, 32), np.uint8), np.zeros(2, int), r"expected uint8 \(N, 32, 32, 3\)"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(3, int), "expected 2 integers"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2), "expected 2 integers"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 10]), "labels outside 0 to 9"),
        (np.zeros((2, 32, 32, 3), np.uint8), np.array([-1, 0]), "labels outside 0 to 9"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str) -> None:
    (tmp_path / "cifar10").mkdir()
    np.save(tmp_path / "cifar10" / "test_images.npy", images)
    np.save(tmp_path / "cifar10" / "test_labels.npy", labels)
    with pytest.raises(DatasetNotFoundError, match=message):
        datasets.load_split("cifar10", "test", tmp_path)


def test_broken_and_pickled_files(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "cifar10" / "test_images.npy"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetNotFoundError, match="no readable"):
        datasets.load_split("cifar10", "test", tmp_path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetNotFoundError, match="no readable"):
        datasets.load_split("cifar10", "test", tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DatasetNotFoundError, match="not a plain file"):
        datasets.load_split("cifar10", "test", tmp_path)
    if hasattr(os, "mkfifo"):  # np.load alone would wait for ever
        path.rmdir()
        os.mkfifo(path)
        with pytest.raises(DatasetNotFoundError, match="not a plain file"):
            datasets.load_split("cifar10", "test", tmp_path)
    (tmp_path / "cifar10" / "train_labels.npy").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"train_labels\.npy does not exist"):
        datasets.load_split("cifar10", "train", tmp_path)


def test_without_torchvision_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingDependencyError, match="pip install torchvision"):
        datasets.load_split("mnist", "test", tmp_path, download=True)
    with pytest.raises(MissingDependencyError, match="pip install torchvision"):
        datasets.load_split("mnist", "test")  # no folder named: the download goes to the user's cache
    make(tmp_path)
    datasets.load_split("cifar10", "test", tmp_path)  # NumPy files need no torchvision


def idx(array: np.ndarray) -> bytes:
    """MNIST's file format."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def mnist_files(train: int = 6, test: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    return {
        f"{stem}-{what}-ubyte": generator.integers(0, 10, (n, 28, 28) if "images" in what else (n,))
        for stem, n in (("train", train), ("t10k", test))
        for what in ("images-idx3", "labels-idx1")
    }


def test_torchvisions_own_files_are_taken(tmp_path: Path) -> None:
    name, folder = "mnist", "MNIST"
    pytest.importorskip("torchvision")
    files = mnist_files()
    (tmp_path / folder / "raw").mkdir(parents=True)
    for file, array in files.items():
        (tmp_path / folder / "raw" / file).write_bytes(idx(array))
    images, labels = datasets.load_split(name, "test", tmp_path)
    assert np.array_equal(images[..., 0], files["t10k-images-idx3-ubyte"])
    assert np.array_equal(labels, files["t10k-labels-idx1-ubyte"])
    assert np.array_equal(np.load(tmp_path / name / "train_images.npy")[..., 0], files["train-images-idx3-ubyte"])
    assert len(datasets.read_meta(name, tmp_path)["classes"]) == 10
    assert not list(tmp_path.rglob("*.part"))


def test_torchvision_downloads_into_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP from a server of this test, with torchvision's own downloading and checking."""
    import functools
    import http.server
    import threading

    official = pytest.importorskip("torchvision.datasets")
    served = tmp_path / "served"
    served.mkdir()
    files, resources = mnist_files(), []
    for name, array in files.items():
        packed = gzip.compress(idx(array), mtime=0)
        (served / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    handler.log_message = lambda *arguments: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(official.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_address[1]}/"])
        monkeypatch.setattr(official.MNIST, "resources", resources)
        images, _ = datasets.load_split("mnist", "test")
        assert np.array_equal(images[..., 0], files["t10k-images-idx3-ubyte"])
        assert (tmp_path / "cache" / "acert-zoo" / "data" / "mnist" / "train_labels.npy").exists()
        (served / "t10k-images-idx3-ubyte.gz").write_bytes(b"damaged")
        with pytest.raises(DatasetNotFoundError, match="could not be downloaded"):
            datasets.load_split("mnist", "test", tmp_path / "other", download=True)
        assert not (tmp_path / "other" / "mnist" / "test_images.npy").exists()
        server.shutdown()


def test_cifar10_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = pytest.importorskip("torchvision.datasets")
    generator = np.random.default_rng(3)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batches = {}
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        batches[name] = generator.integers(0, 256, (4, 3072), dtype=np.uint8)
        labels = generator.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": batches[name], "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    with pytest.raises(DatasetNotFoundError, match="could not be read"):  # torchvision checks the official digests
        datasets.load_split("cifar10", "test", tmp_path)
    monkeypatch.setattr(official.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(official.cifar, "check_integrity", lambda *arguments: True)
    images, _ = datasets.load_split("cifar10", "test", tmp_path)
    assert np.array_equal(images, batches["test_batch"].reshape(4, 3, 32, 32).transpose(0, 2, 3, 1))
    assert len(np.load(tmp_path / "cifar10" / "train_images.npy")) == 20
    assert datasets.read_meta("cifar10", tmp_path)["classes"][3] == "class 3"


def test_tiny_imagenets_official_folder(tmp_path: Path) -> None:
    """200 classes, their ids unsorted in wnids.txt; grey images; numbers that sort as text the wrong way."""
    source = tmp_path / "tiny-imagenet-200"
    ids = [f"n{i:08d}" for i in range(200)]
    (source / "val" / "images").mkdir(parents=True)
    (source / "wnids.txt").write_text("\n".join(reversed(ids)))
    (source / "words.txt").write_text("".join(f"{wnid}\tword {i}, other\n" for i, wnid in enumerate(ids)))
    for i, wnid in enumerate(ids[:2] + ids[199:]):
        (source / "train" / wnid / "images").mkdir(parents=True)
        for number in (0, 2, 10):
            shade = Image.new("RGB", (64, 64), (10 * number, 50 * i, 100))
            shade.save(source / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", quality=95)
    Image.new("L", (64, 64), 77).save(source / "val" / "images" / "val_0.JPEG")
    Image.new("RGB", (64, 64), (200, 0, 0)).save(source / "val" / "images" / "val_1.JPEG")
    (source / "val" / "val_annotations.txt").write_text(
        f"val_0.JPEG\t{ids[199]}\t0\t0\t63\t63\nval_1.JPEG\t{ids[1]}\t0\t0\t63\t63\n"
    )
    images, labels = datasets.load_split("tinyimagenet", "test", tmp_path)
    assert labels.tolist() == [199, 1]
    assert images.shape == (2, 64, 64, 3)
    assert (images[0] == 77).all()
    assert abs(int(images[1, 5, 5, 0]) - 200) < 5
    train = np.load(tmp_path / "tinyimagenet" / "train_images.npy")
    assert np.load(tmp_path / "tinyimagenet" / "train_labels.npy").tolist() == [0, 0, 0, 1, 1, 1, 199, 199, 199]
    assert np.abs(train[:, 5, 5, 0].astype(int) - [0, 20, 100] * 3).max() < 5
    assert datasets.read_meta("tinyimagenet", tmp_path)["classes"][199] == {
        "wnid": ids[199],
        "words": "word 199, other",
    }
    (source / "val" / "images" / "val_1.JPEG").write_bytes(b"no image")
    for path in (tmp_path / "tinyimagenet").iterdir():
        path.unlink()
    with pytest.raises(DatasetNotFoundError, match="cannot be prepared"):
        datasets.load_split("tinyimagenet", "test", tmp_path)
    assert not list((tmp_path / "tinyimagenet").glob("*images*"))


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    pytest.importorskip("torchvision")
    with pytest.raises(DatasetNotFoundError, match="cannot be prepared in"):
        datasets.load_split("mnist", "test", tmp_path / "file" / "data", download=True)


@pytest.mark.parametrize(
    ("name", "sizes", "mean", "std"),
    [
        ("cifar10", (45000, 5000, 10000), (0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
        ("mnist", (55000, 5000, 10000), (0.1307,), (0.3081,)),
    ],
)
def test_the_real_data(
    name: str, sizes: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...], data_root: Path
) -> None:
    assert tuple(len(datasets.load_split(name, s, data_root)[0]) for s in ("train", "val", "test")) == sizes
    images = np.load(data_root / name / "train_images.npy", mmap_mode="r")
    channels = images.reshape(-1, images.shape[-1])[::11] / 255.0
    assert np.allclose(channels.mean(0), mean, atol=1e-3)
    assert np.allclose(channels.std(0), std, atol=1e-3)
    info = datasets.dataset_info(name)
    assert np.allclose(info.mean, mean, atol=5e-5)
    assert np.allclose(info.std, std, atol=5e-5)
