"""Writing a data set's NumPy files: whole or not at all, the labels first (images say that a split is there)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from acert_zoo.data.dataset import DatasetInfo


def save_split(folder: Path, stem: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes `<stem>_labels.npy` (int64 [N]) and `<stem>_images.npy` (uint8 [N, H, W, C]) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _save_array(folder / f"{stem}_labels.npy", labels.astype(np.int64))
    _save_array(folder / f"{stem}_images.npy", np.ascontiguousarray(images, dtype=np.uint8))


def save_one_by_one(
    info: DatasetInfo, folder: Path, stem: str, images: Iterable[np.ndarray], labels: Sequence[int]
) -> None:
    """As `save_split`, image by image into a memory map, so that 100,000 images never stand in memory."""
    channels, height, width = info.input_shape
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{stem}_images.npy.{os.getpid()}.part"
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(labels), height, width, channels))
        for i, image in enumerate(images):
            array[i] = image
        array.flush()
        _save_array(folder / f"{stem}_labels.npy", np.array(labels, dtype=np.int64))
        os.replace(part, folder / f"{stem}_images.npy")
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _save_array(path: Path, array: np.ndarray) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
