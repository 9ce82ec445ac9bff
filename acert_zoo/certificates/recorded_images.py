"""The images that a certificate file is about: from tensors, a folder of image files, or the data set it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from acert_zoo.certificates.file import Header, Line
from acert_zoo.data.checks import check_images
from acert_zoo.errors import InvalidInputError

Images = Tensor | Mapping[str, Tensor] | str | os.PathLike[str] | None
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
        images: see `verification.verify_file`.
        shape: (C, H, W) that the model takes, where it says so.
        resize: image files are scaled and converted to it, as they were when they were certified.

    Raises:
        InvalidInputError, DatasetNotFoundError: there are no such images, or not as many as lines.
    """
    if isinstance(images, Tensor):
        checked, _ = check_images(images, None, shape)
        if len(checked) != len(lines):
            raise InvalidInputError(f"the file certifies {len(lines)} images, {len(checked)} were given")
        return lambda i, line: (checked[i], None)
    if isinstance(images, Mapping):
        given = images

        def from_mapping(i: int, line: Line) -> tuple[Tensor, int | None]:
            if line.id not in given:
                raise InvalidInputError(f"no image {line.id!r} was given")
            return check_images(given[line.id].unsqueeze(0), None, shape)[0][0], None

        return from_mapping
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
        if not line.id.isascii() or not line.id.isdecimal() or int(line.id[:12]) >= len(labels):
            raise InvalidInputError(f"{name} {split} has no image {line.id!r} (0 to {len(labels) - 1})")
        k = int(line.id)
        return to_pixels(arrays[k : k + 1].copy())[0], int(labels[k])

    return get


def _from_file(folder: Path | None, name: str, shape: Sequence[int], resize: bool) -> Tensor:
    from acert_zoo.data.image_files import load_images

    candidates = [Path(name)] if folder is None else [folder / name, folder / Path(name).name]
    return load_images([next((p for p in candidates if p.is_file()), candidates[0])], shape, resize=resize)[0]
