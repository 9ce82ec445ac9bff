"""Data sets: what the zoo knows of each, and reading their splits from a folder of NumPy files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from acert_zoo.errors import DatasetNotFoundError, InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

DATA_ENVIRONMENT_VARIABLE = "ACERT_ZOO_DATA"
VALIDATION_SIZE = 5000


def parse_float(text: str) -> float:
    """ "8.8/255" or "0.3" as the nearest float64 (training only; certification parses exactly)."""
    numerator, _, denominator = text.partition("/")
    return float(Fraction(numerator) / Fraction(denominator or "1"))


@dataclass(frozen=True)
class DatasetInfo:
    """Facts of one data set. `eps_max` and `reported_eps` are l-inf radii in pixel units, written exactly."""

    name: str
    input_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eps_max: str
    reported_eps: tuple[str, ...]

    @property
    def eps_max_value(self) -> float:
        return parse_float(self.eps_max)


DATASETS = {
    d.name: d
    for d in (
        DatasetInfo("mnist", (1, 28, 28), 10, (0.1307,), (0.3081,), "0.4", ("0.1", "0.3", "0.4")),
        DatasetInfo("fashionmnist", (1, 28, 28), 10, (0.2860,), (0.3530,), "0.1", ("0.05", "0.1")),
        DatasetInfo(
            "cifar10",
            (3, 32, 32),
            10,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            "8.8/255",
            ("2/255", "8/255"),
        ),
        DatasetInfo(
            "tinyimagenet", (3, 64, 64), 200, (0.4802, 0.4481, 0.3975), (0.2764, 0.2689, 0.2816), "1/255", ("1/255",)
        ),
    )
}


def dataset_info(name: str) -> DatasetInfo:
    """The facts of data set `name`; UnknownNameError if there is none."""
    if name not in DATASETS:
        raise UnknownNameError.near("data set", name, DATASETS)
    return DATASETS[name]


def default_root() -> Path:
    """Where data sets go that are downloaded without naming a folder: $XDG_CACHE_HOME/acert-zoo/data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acert-zoo" / "data"


def _root(data_root: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """The folder of the data sets, and whether the user named it."""
    named = data_root or os.environ.get(DATA_ENVIRONMENT_VARIABLE)
    return (Path(named).expanduser(), True) if named else (default_root(), False)


def load_split(
    name: str,
    split: str,
    data_root: str | os.PathLike[str] | None = None,
    *,
    download: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [N, H, W, C], labels int64 [N]) of one split.

    The folder holds `<name>/{train,test}_{images,labels}.npy`. Where these are not there yet, they are made, once, from
    what is: torchvision's own files (`cifar-10-batches-py`, `MNIST/raw`), the official `tiny-imagenet-200`, or
    torchvision's download. The test images stay a memory map; train and val are one uint8 array each.

    Args:
        split: "train" (without the validation images), "val" (the held-out 5,000 training images) or "test".
        data_root: the folder of the data sets; by default $ACERT_ZOO_DATA, else a folder in the user's cache.
        download: whether torchvision may download; by default only into the folder in the user's cache.

    Raises:
        DatasetNotFoundError: the data set is not there, or the files are not of this data set.
        MissingDependencyError: torchvision is needed and not installed.
    """
    info = dataset_info(name)
    if split not in ("train", "val", "test"):
        raise InvalidInputError(f"unknown split {split!r}; known: train, val, test")
    root, named = _root(data_root)
    stem = "test" if split == "test" else "train"
    folder = root / name
    if not (folder / f"{stem}_images.npy").exists():
        from acert_zoo.data.sources import prepare

        prepare(info, root, download=not named if download is None else download)
    images, labels = _read(info, folder, stem)
    if split == "test":
        return images, labels
    order = np.random.default_rng(0).permutation(len(images))
    chosen = np.sort(order[-VALIDATION_SIZE:] if split == "val" else order[:-VALIDATION_SIZE])
    return images[chosen], labels[chosen]


def _read(info: DatasetInfo, folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """The two files of one stem, their shapes, dtypes and labels checked."""
    paths = [folder / f"{stem}_{what}.npy" for what in ("images", "labels")]
    try:
        images = np.load(paths[0], mmap_mode="r", allow_pickle=False)
        labels = np.load(paths[1], allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"data set {info.name!r}: {error.filename} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise DatasetNotFoundError(f"data set {info.name!r}: {folder} holds no readable .npy files: {error}") from error
    channels, height, width = info.input_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise DatasetNotFoundError(
            f"{paths[0]} is {images.dtype} {images.shape}; uint8 (N, {height}, {width}, {channels}) is meant"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DatasetNotFoundError(f"{paths[1]} is {labels.dtype} {labels.shape}; {len(images)} integers are meant")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < info.num_classes:
        raise DatasetNotFoundError(f"{paths[1]} has labels outside 0 to {info.num_classes - 1}")
    return images, labels.astype(np.int64)


def read_meta(name: str, data_root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The data set's meta.json (`classes`, `test_inexact`, ...); empty where the folder has none."""
    path = _root(data_root)[0] / name / "meta.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def inexact_test_images(name: str, data_root: str | os.PathLike[str] | None = None) -> list[int]:
    """Indices of test images whose pixels, in this copy of the data set, are not exactly the original ones."""
    return [int(i) for i in read_meta(name, data_root).get("test_inexact", [])]


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [N, H, W, C] to float32 pixels [N, C, H, W] in [0, 1]: k -> fl32(k / 255), as torchvision's ToTensor.

    The memory format is channels_last, in which convolutions are fastest on the CPU.
    """
    import torch

    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(torch.float32).div(255)
