"""The images that a certificate file is about: from tensors, a folder of image files, or the data set it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from acert_zoo._files import is_plain_file
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.data.array_source import index_of
from acert_zoo.data.checks import check_images
from acert_zoo.errors import InvalidInputError

Images = Tensor | np.ndarray | Mapping[str, Any] | str | os.PathLike[str] | None
Source = Callable[[int, Line], tuple[Tensor, int | None]]  # (position, line) -> pixels [C, H, W], true label if known


def image_source(
    images: Images,
    header: Header,
    lines: Sequence[Line],
    data_root: str | os.PathLike[str] | None,
    shape: Sequence[int] | None,
    resize: bool = False,
) -> Source:
    """Where the pixels of each line come from.

    Args:
        images: see `verify.verify_file`.
        shape: (C, H, W) that the model takes, where it says so.
        resize: image files are scaled and converted to it, as they were when they were certified.

    Raises:
        InvalidInputError, DatasetNotFoundError: there are no such images, or not as many as lines.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        checked, _ = check_images(images, None, shape)
        if len(checked) != len(lines):
            raise InvalidInputError(f"the file certifies {len(lines)} images, {len(checked)} were given")
        return lambda i, line: (checked[i], None)
    if isinstance(images, Mapping):
        given = images

        def from_mapping(i: int, line: Line) -> tuple[Tensor, int | None]:
            if line.id not in given:
                raise InvalidInputError(f"no image {line.id!r} was given")
            image = given[line.id]
            if not isinstance(image, (Tensor, np.ndarray)):
                raise InvalidInputError(f"image {line.id!r} must be a tensor [C, H, W], got {type(image).__name__}")
            return check_images(image[None], None, shape)[0][0], None

        return from_mapping
    if not isinstance(images, (str, os.PathLike, type(None))):
        raise InvalidInputError(
            f"images must be a tensor, a mapping from ids to tensors, or a folder, got {type(images).__name__}"
        )
    if images is None and header.dataset is not None:
        return _from_dataset(header.dataset, header.split, data_root)
    folder = None if images is None else Path(images)
    if folder is not None and not folder.is_dir():
        raise InvalidInputError(f"folder of images {str(folder)!r} does not exist")
    if shape is None:
        raise InvalidInputError("the model does not say which image size it takes: give the images as a tensor")
    return lambda i, line: (_from_file(folder, line.id, shape, resize), None)


def _from_dataset(name: str, split: str | None, data_root: str | os.PathLike[str] | None) -> Source:
    from acert_zoo.data.datasets import load_split, to_pixels

    if split == "samples":
        from acert_zoo.data.samples import sample_arrays

        arrays, labels = sample_arrays(name)
    else:
        arrays, labels = load_split(name, split or "test", data_root)

    def get(i: int, line: Line) -> tuple[Tensor, int | None]:
        k = index_of(line.id, len(labels))
        if k is None:
            raise InvalidInputError(f"{name} {split} has no image {line.id!r:.80} (0 to {len(labels) - 1})")
        return to_pixels(arrays[k : k + 1].copy())[0], int(labels[k])

    return get


def _from_file(folder: Path | None, name: str, shape: Sequence[int], resize: bool) -> Tensor:
    from acert_zoo.data.image_files import load_images

    candidates = [Path(name)] if folder is None else [folder / name, folder / Path(name).name]
    found = next((path for path in candidates if is_plain_file(path)), None)
    if found is None:
        where = (
            f"in {str(folder)!r}" if folder else f"seen from {os.getcwd()!r}; --images FOLDER says where it lies now"
        )
        raise InvalidInputError(f"there is no image file {name!r:.200} {where}")
    return load_images([found], shape, resize=resize)[0]
