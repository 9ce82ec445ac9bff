"""Reading the splits of data sets: NumPy files, which are made once from what is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from acert_zoo._files import open_plain, read_text
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.data.registration import dataset_info, dataset_root
from acert_zoo.errors import DatasetNotFoundError, InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor


def load_split(
    name: str,
    split: str,
    data_root: str | os.PathLike[str] | None = None,
    *,
    download: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [N, H, W, C], labels int64 [N]) of one split.

    The folder holds `<name>/{train,test}_{images,labels}.npy`, or the data set's registration names another folder with
    such files. Where these are not there yet, they are made, once, from what is: folders of images
    (`{train,test}/<class>/*.png`), torchvision's own files (`cifar-10-batches-py`, `MNIST/raw`), the official
    `tiny-imagenet-200`, or torchvision's download. The test images stay a memory map; train and val are one uint8 array
    each.

    Args:
        split: "train" (without the validation images), "val" (the held-out training images, as many as the data set's
            registration says) or "test".
        data_root: the folder of the data sets; by default $ACERT_ZOO_DATA, else a folder in the user's cache.
        download: whether torchvision may download; by default only into the folder in the user's cache.

    Raises:
        UnknownNameError: no such data set.
        DatasetNotFoundError: the data set is not there, or the files are not of this data set.
        MissingDependencyError: torchvision is needed and not installed.
    """
    info = dataset_info(name, data_root)
    if split not in ("train", "val", "test"):
        raise InvalidInputError(f"unknown split {split!r}; known: train, val, test")
    stem = "test" if split == "test" else "train"
    images, labels = _read(info, _folder(info, stem, data_root, download), stem)
    if split == "test":
        return images, labels
    held_out = info.validation_size(len(images))
    order = np.random.default_rng(0).permutation(len(images))
    chosen = np.sort(order[-held_out:] if split == "val" else order[:-held_out])
    return images[chosen], labels[chosen]


def training_images(name: str, data_root: str | os.PathLike[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 [N, H, W, C], a memory map; labels int64 [N]): all training images, those held out included.

    Errors as of `load_split`.
    """
    info = dataset_info(name, data_root)
    return _read(info, _folder(info, "train", data_root, None), "train")


def _folder(info: DatasetInfo, stem: str, data_root: str | os.PathLike[str] | None, download: bool | None) -> Path:
    """The folder that holds the NumPy files of one stem, made where they are not there yet."""
    root, named = dataset_root(data_root)
    folder = info.files or root / info.name
    if (folder / f"{stem}_images.npy").exists():
        return folder
    if (folder / stem).is_dir():
        from acert_zoo.data.class_folders import converted

        return converted(info, folder, stem)
    from acert_zoo.data.sources import prepare

    prepare(info, root, folder, download=not named if download is None else download)
    return folder


def _read(info: DatasetInfo, folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """The two files of one stem, their shapes, dtypes and labels checked."""
    paths = [folder / f"{stem}_{what}.npy" for what in ("images", "labels")]
    try:
        for path in paths:
            open_plain(path).close()  # np.load would wait for a pipe
        images = np.load(paths[0], mmap_mode="r", allow_pickle=False)
        labels = np.load(paths[1], allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetNotFoundError(f"data set {info.name!r}: {error.filename} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise DatasetNotFoundError(f"data set {info.name!r}: {folder} holds no readable .npy files: {error}") from error
    channels, height, width = info.input_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise DatasetNotFoundError(
            f"{paths[0]} is {images.dtype} {images.shape}; expected uint8 (N, {height}, {width}, {channels})"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise DatasetNotFoundError(f"{paths[1]} is {labels.dtype} {labels.shape}; expected {len(images)} integers")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < info.num_classes:
        raise DatasetNotFoundError(f"{paths[1]} has labels outside 0 to {info.num_classes - 1}")
    return images, labels.astype(np.int64)


def read_meta(name: str, data_root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The data set's meta.json (`classes`, `test_inexact`, ...); empty where the folder has none."""
    info = dataset_info(name, data_root)
    path = (info.files or dataset_root(data_root)[0] / name) / "meta.json"
    return json.loads(read_text(path)) if path.exists() else {}


def inexact_test_images(name: str, data_root: str | os.PathLike[str] | None = None) -> list[int]:
    """Indices of test images whose pixels, in this copy of the data set, are not exactly the original ones."""
    return [int(i) for i in read_meta(name, data_root).get("test_inexact", [])]


def to_pixels(images: np.ndarray | Tensor) -> Tensor:
    """uint8 [N, H, W, C] to float32 pixels [N, C, H, W] in [0, 1]: k -> fl32(k / 255), as torchvision's ToTensor.

    The memory format is channels_last, in which convolutions are fastest on the CPU. A tensor stays on its device.
    """
    import torch

    if not isinstance(images, torch.Tensor):
        images = torch.from_numpy(np.ascontiguousarray(images))
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
