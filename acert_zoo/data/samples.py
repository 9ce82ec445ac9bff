"""Real test images that come with the package, so that everything runs at once and offline.

Each data set has one lossless PNG sheet of tiles (row by row) and a JSON file with labels, indices in the test set,
source and licence; `scripts/make_samples.py` makes both. Images stand in rounds of one per class, so that any
first n are balanced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import InvalidInputError, MissingDependencyError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).with_name("sample_images")


@dataclass(frozen=True)
class SampleInfo:
    """What the bundled images of one data set are.

    Attributes:
        indices: position of each image in the data set's test split (Tiny ImageNet: its labelled validation split).
        labels: class index of each image.
        tile: (height, width, channels) of one image; `columns` of them stand in a row of the sheet.
    """

    dataset: str
    indices: tuple[int, ...]
    labels: tuple[int, ...]
    tile: tuple[int, int, int]
    columns: int
    source: str
    license: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes of the data set."""
        return dataset_info(self.dataset).classes


def sample_sets() -> list[str]:
    """Names of the data sets that have bundled images."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@lru_cache
def sample_info(name: str) -> SampleInfo:
    """What the bundled images of data set `name` are; UnknownNameError if there are none."""
    if name not in sample_sets():
        raise UnknownNameError.near("sample data set", name, sample_sets())
    values: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    lists = ("indices", "labels", "tile")
    return SampleInfo(**{**values, **{key: tuple(values[key]) for key in lists}})


def sample_arrays(name: str, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The first n bundled images of data set `name` (None: all): uint8 [n, H, W, C] and labels int64 [n]."""
    info = sample_info(name)
    total = len(info.labels)
    if n is None:
        n = total
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 <= n <= total:
        raise InvalidInputError(f"n = {n!r}: the package has {total} images of {name!r}; 0 to {total} can be asked for")
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("reading images needs Pillow: pip install pillow") from error
    with Image.open(FOLDER / f"{name}.png") as sheet:
        pixels = np.asarray(sheet)
    height, width, channels = info.tile
    rows = pixels.shape[0] // height
    tiles = pixels.reshape(rows, height, info.columns, width, channels).transpose(0, 2, 1, 3, 4)
    images = np.ascontiguousarray(tiles.reshape(-1, height, width, channels)[:n])
    return images, np.array(info.labels[:n], dtype=np.int64)


def sample_data(name: str, n: int | None = None) -> tuple[Tensor, Tensor]:
    """Bundled real test images of a data set, balanced over its classes.

    Args:
        name: "cifar10", "mnist" (100 images each) or "tinyimagenet" (20 images of distinct classes).
        n: how many, from the first; all by default.

    Returns:
        (images, labels): float32 [n, C, H, W] in [0, 1] and int64 [n].

    Raises:
        UnknownNameError: no such data set; InvalidInputError: n is larger than what is bundled;
            MissingDependencyError: Pillow is not installed.
    """
    import torch

    from acert_zoo.data.datasets import to_pixels

    images, labels = sample_arrays(name, n)
    return to_pixels(images), torch.from_numpy(labels)
