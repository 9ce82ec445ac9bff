"""From the image files and folders of a command line to pixels, ids and labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from acert_zoo._files import read_text
from acert_zoo.cli.input_images import Inputs
from acert_zoo.data.image_files import load_images, read_images
from acert_zoo.data.image_paths import ImagePath, folder_labels, image_paths
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import InvalidInputError, UnknownNameError


def read_image_files(
    files: Sequence[str],
    input_shape: Sequence[int] | None,
    dataset: str | None,
    *,
    labels: str | None,
    limit: int | None,
    resize: bool,
    skip_unreadable: bool,
    part: Callable[[int], slice] | None = None,
) -> Inputs:
    """The images of files and folders. Labels are those of --labels, else those that folders named like classes give.

    Args:
        input_shape: (C, H, W) that the model takes, where it says so.
        dataset: the model's data set, whose classes folders may be named like.
        labels: "3,8", the name of a text file with one label a line, or None.
        skip_unreadable: files that cannot be used are left out and named in the notes.
        part: which of so many files are wanted, all by default; labels are for all of them.
    """
    if input_shape is None:
        raise InvalidInputError("the model does not say which image size it takes; use --data")
    paths = image_paths(files)[:limit]
    targets = _labels(labels, paths, dataset)
    if part is not None:
        rows = part(len(paths))
        paths, targets = paths[rows], None if targets is None else targets[rows]
    batch = read_images([p.path for p in paths], input_shape, resize=resize)
    if batch.unreadable and not skip_unreadable:
        load_images([paths[i].path for i in batch.unreadable], input_shape, resize=resize)  # raises, naming all
    notes = []
    if batch.stretched:
        notes.append(f"--resize changed the aspect ratio of {batch.stretched:,} of {len(batch.read):,} images")
    if batch.unreadable:
        reasons = "".join(f"\n  {reason}" for reason in batch.unreadable.values())
        notes.append(f"left out {len(batch.unreadable):,} of {len(paths):,} files:{reasons}")
    return Inputs(
        batch.pixels,
        None if targets is None else torch.tensor(targets, dtype=torch.int64)[batch.read],
        [str(paths[i].path) for i in batch.read],
        "image files" if labels is not None or targets is None else "image files, labelled by their folders",
        notes=tuple(notes),
    )


def _labels(text: str | None, paths: Sequence[ImagePath], dataset: str | None) -> list[int] | None:
    if text is not None:
        values = _parse_labels(text)
        if len(values) != len(paths):
            raise InvalidInputError(f"--labels gives {len(values)} labels for {len(paths)} images")
        return values
    try:
        info = dataset_info(dataset) if dataset else None
    except UnknownNameError:
        info = None
    return folder_labels(paths, info.class_folders, info.name) if info else None


def _parse_labels(text: str) -> list[int]:
    """ "3,8" or the name of a text file with one label a line."""
    source = "--labels"
    if os.path.exists(text):
        source = f"label file {text!r}"
        try:
            words = read_text(text).split()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{source} cannot be read: {error}") from error
    else:
        words = text.split(",")
    labels = []
    for word in words:
        if not (word.strip().isascii() and word.strip().isdigit() and len(word) < 10):
            raise InvalidInputError(
                f"{source}: {word.strip()!r} is not a label; expected numbers such as 3,8, or a file with one a line"
            )
        labels.append(int(word))
    return labels
