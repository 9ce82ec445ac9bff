"""A data set as folders of images, `{train,test}/<class>/*.png`, read once into NumPy files in the user's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from acert_zoo.data.array_files import save_one_by_one
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.data.image_files import load_images
from acert_zoo.data.image_paths import ImagePath, folder_labels, image_paths
from acert_zoo.data.registration import default_root
from acert_zoo.errors import DatasetNotFoundError, InvalidInputError, UnknownNameError

_AT_ONCE = 256  # images that are decoded before they are written


def converted(info: DatasetInfo, folder: Path, stem: str) -> Path:
    """The folder of the NumPy files made from the images below `folder / stem`, in the order of their paths.

    They lie in the user's cache under a digest of the files' names, sizes and times of change: a changed folder is read
    anew, and the data themselves are never written to.

    Raises:
        DatasetNotFoundError: there are no images, one cannot be used, or one lies in no class's folder.
    """
    where = folder / stem
    try:
        paths = image_paths([where])
        cache = default_root() / "converted" / f"{info.name}-{stem}-{_digest(info, paths)}"
        if (cache / f"{stem}_images.npy").exists():
            return cache
        labels = folder_labels(paths, info.class_folders, info.name)
        if labels is None:
            names = sorted({p.path.relative_to(where).parts[0] for p in paths})
            raise InvalidInputError(
                f"no folder below it is named like a class ({', '.join(info.classes[:5])}, ...); it has "
                f"{', '.join(map(repr, names[:5]))}"
            )
        save_one_by_one(info, cache, stem, _decoded(info, paths), labels)
    except (InvalidInputError, UnknownNameError, OSError) as error:
        raise DatasetNotFoundError(f"data set {info.name!r} in {where}: {error}") from error
    return cache


def _digest(info: DatasetInfo, paths: list[ImagePath]) -> str:
    """What the arrays depend on: the registration's shape, classes and `resize`, and the files."""
    digest = hashlib.sha256(repr((info.input_shape, info.class_folders, info.resize)).encode())
    for found in paths:
        state = found.path.stat()
        digest.update(repr((str(found.path.absolute()), state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def _decoded(info: DatasetInfo, paths: list[ImagePath]) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), _AT_ONCE):
        files = [found.path for found in paths[start : start + _AT_ONCE]]
        try:
            pixels = load_images(files, info.input_shape, resize=info.resize).permute(0, 2, 3, 1).numpy()
        except InvalidInputError as error:
            hint = str(error).replace("--resize", "resize = true in the registration")
            raise InvalidInputError(hint) from error
        grey_levels = np.rint(pixels * 255)
        if not info.resize and np.abs(pixels * 255 - grey_levels).max() > 1e-3:
            raise InvalidInputError(
                "an image has 16 bits a sample, a data set holds 8; resize = true in the registration rounds it"
            )
        yield from grey_levels.astype(np.uint8)
