"""Images in NumPy arrays: splits of registered data sets, and `.npy` files, which are mapped and never loaded whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acert_zoo._files import open_plain
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.data.datasets import load_split, to_pixels
from acert_zoo.data.registration import dataset_root, register_dataset
from acert_zoo.data.samples import sample_arrays
from acert_zoo.errors import InvalidInputError


def index_of(text: str, n: int) -> int | None:
    """The index in [0, n) that an id says, as decimal digits without leading zeros; None where it says none."""
    index = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else -1
    return index if 0 <= index < n and text == str(index) else None


class _Indexed:
    """Images that are named by their index."""

    def __len__(self) -> int:
        raise NotImplementedError

    def ids(self, rows: range) -> list[str]:
        return [str(i) for i in rows]

    def find(self, name: str) -> int | None:
        return index_of(name, len(self))


@dataclass(frozen=True)
class SplitSource(_Indexed):
    """A split of a registered data set, or the package's own samples of it (split "samples")."""

    info: DatasetInfo
    split: str
    data_root: str | None = None
    labelled = True

    @property
    def dataset(self) -> str:
        return self.info.name

    @property
    def description(self) -> str:
        return f"{self.info.name} {self.split} images"

    @property
    def fingerprint(self) -> str:
        return f"{self.info.name} {self.split} {len(self)}"

    def __len__(self) -> int:
        return len(self._arrays()[1])

    def read(self, rows: range) -> tuple[Tensor, Tensor]:
        images, labels = self._arrays()
        part = slice(rows.start, rows.stop)
        return to_pixels(np.array(images[part])), torch.from_numpy(labels[part].copy())

    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        if self.split == "samples":
            return sample_arrays(self.info.name)
        if self.info.files is not None:  # registered beside its data, or by a file: other processes do not know it
            register_dataset(self.info)
        return _split(self.info.name, self.split, str(dataset_root(self.data_root)[0]), self.data_root)


@lru_cache(maxsize=2)
def _split(name: str, split: str, root: str, data_root: str | None) -> tuple[np.ndarray, np.ndarray]:
    return load_split(name, split, data_root)


@dataclass(frozen=True)
class ArraySource(_Indexed):
    """A `.npy` file of images, and perhaps one of labels.

    Args:
        images: uint8 [N, H, W, C] (k becomes fl32(k / 255)), or float32 [N, C, H, W] in [0, 1].
        labels: integers [N].
        input_shape: (C, H, W) that the model takes.
    """

    images: str
    labels: str | None
    input_shape: tuple[int, ...]
    dataset = None
    split = None

    def __post_init__(self) -> None:
        array, shape = _mapped(self.images), self.input_shape
        wanted = {"uint8": (*shape[1:], shape[0]), "float32": shape}.get(str(array.dtype))
        if array.ndim != 4 or array.shape[1:] != wanted:
            raise InvalidInputError(
                f"{self.images!r} is {array.dtype} {array.shape}; the model takes uint8 (N, {shape[1]}, {shape[2]}, "
                f"{shape[0]}) or float32 (N, {shape[0]}, {shape[1]}, {shape[2]})"
            )
        if self.labels is not None:
            labels = _mapped(self.labels)
            if labels.shape != (len(array),) or labels.dtype.kind not in "iu":
                raise InvalidInputError(
                    f"{self.labels!r} is {labels.dtype} {labels.shape}; expected {len(array)} integers, one an image"
                )

    @property
    def description(self) -> str:
        return f"images of {os.path.basename(self.images)}"

    @property
    def labelled(self) -> bool:
        return self.labels is not None

    @property
    def fingerprint(self) -> str:
        array = _mapped(self.images)
        return f"{os.path.basename(self.images)} {array.dtype} {array.shape}"

    def __len__(self) -> int:
        return len(_mapped(self.images))

    def read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        part = slice(rows.start, rows.stop)
        array = np.array(_mapped(self.images)[part])
        pixels = to_pixels(array) if array.dtype == np.uint8 else torch.from_numpy(array)
        if self.labels is None:
            return pixels, None
        return pixels, torch.from_numpy(np.array(_mapped(self.labels)[part]).astype(np.int64))


def _mapped(path: str) -> Any:
    """The array as a memory map; pickled objects are refused."""
    try:
        return _mapped_as_of(path, os.stat(path).st_mtime_ns)
    except OSError as error:
        raise InvalidInputError(f"{path!r} cannot be read as a .npy array: {error}") from None


@lru_cache(maxsize=4)
def _mapped_as_of(path: str, changed: int) -> Any:
    try:
        open_plain(path).close()  # np.load would wait for a pipe
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInputError(f"{path!r} cannot be read as a .npy array: {error}") from None
