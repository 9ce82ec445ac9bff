"""From what a user names - a data set, a folder of images, a `.npy` file, tar files - to numbered images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acert_zoo.data.array_source import ArraySource, SplitSource
from acert_zoo.data.folder_source import FolderSource
from acert_zoo.data.pixel_source import PixelSource
from acert_zoo.data.registration import dataset_info, dataset_names
from acert_zoo.data.tar_source import TarSource
from acert_zoo.errors import InvalidInputError, UnknownNameError


def open_source(
    dataset: Any,
    input_shape: Sequence[int] | None,
    *,
    split: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | None = None,
    classes_of: str | None = None,
    resize: bool = False,
) -> PixelSource:
    """The images that `dataset` names.

    Args:
        dataset: a registered data set ("cifar10"); a folder of image files, or of tar files; a `.npy` file; a `.tar`
            file, or a list of them; or a `PixelSource`.
        input_shape: (C, H, W) that the model takes.
        split: "train", "val", "test" (the default) or "samples" of a registered data set.
        data_root: the folder of registered data sets.
        labels: a `.npy` file of integers [N] beside a `.npy` file of images; others bring theirs.
        classes_of: the data set whose classes folders may be named like.
        resize: scale and convert image files to the model's size (docs/images.md).

    Raises:
        UnknownNameError: it is neither a data set nor there as a file or folder.
        InvalidInputError: its images or labels cannot be used.
        DatasetNotFoundError: the data set is not on this machine.
    """
    if hasattr(dataset, "read") and hasattr(dataset, "fingerprint"):
        return dataset  # type: ignore[no-any-return]
    files = list(dataset) if isinstance(dataset, (list, tuple)) else None
    if files is None and not isinstance(dataset, (str, os.PathLike)):
        raise InvalidInputError(f"a data set is named by a string or a path, got {dataset!r:.80}")
    name = None if files is not None else os.fspath(dataset)
    path = Path(name) if name is not None else None
    is_file = files is not None or (path is not None and (path.exists() or path.suffix in (".npy", ".tar")))
    if name is not None and (name in dataset_names() or not is_file):
        _only_for("labels", labels, ".npy files; a data set brings its own")
        try:
            info = dataset_info(name, data_root)
        except UnknownNameError as error:
            raise UnknownNameError(f"{error} Nor is there a file or folder of that name.") from None
        return SplitSource(info, split or "test", None if data_root is None else os.fspath(data_root))
    _only_for("split", split, "registered data sets")
    if input_shape is None:
        raise InvalidInputError("the model does not say which image size it takes: give input_shape=(C, H, W)")
    shape = tuple(input_shape)
    if path is not None and path.suffix == ".npy":
        return ArraySource(str(path), None if labels is None else os.fspath(labels), shape)
    _only_for("labels", labels, ".npy files; folders and tar files bring theirs")
    if files is not None:
        wrong = [file for file in files if Path(file).suffix != ".tar"]
        if wrong or not files:
            raise InvalidInputError(f"a list of files must be tar files (*.tar), got {wrong!r:.200}")
        return TarSource.of(files, shape, resize)
    assert path is not None
    if path.suffix == ".tar":
        return TarSource.of([path], shape, resize)
    if not path.is_dir():
        raise InvalidInputError(f"{str(path)!r} is no data set, folder, .npy or .tar file")
    tars = sorted(path.glob("*.tar"))
    return TarSource.of(tars, shape, resize) if tars else FolderSource.of(path, shape, classes_of, resize)


def _only_for(option: str, value: object, what: str) -> None:
    if value is not None:
        raise InvalidInputError(f"{option} {str(value)!r:.80} is for {what}")
