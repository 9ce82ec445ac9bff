"""Which image files a command line means, and the labels that the names of their folders give."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acert_zoo._files import check_plain_file
from acert_zoo.data.image_decoding import FORMATS, SUFFIXES
from acert_zoo.data.registration import folder_key
from acert_zoo.errors import InvalidInputError, UnknownNameError


@dataclass(frozen=True)
class ImagePath:
    """One image file; `folders` are the names of those it lies in, from the nearest to the one that was named."""

    path: Path
    folders: tuple[str, ...] = ()


def image_paths(arguments: Iterable[str | os.PathLike[str]]) -> list[ImagePath]:
    """The image files that `arguments` name: files as they are, folders by all image files below them in path order.

    Hidden files and folders (names that begin with a dot) are passed over; links are followed, each folder once.

    Raises:
        InvalidInputError: a path does not exist or is a device or a pipe, or a folder holds no image file.
    """
    paths: list[ImagePath] = []
    for argument in arguments:
        path = Path(argument)
        if not path.is_dir():
            check_plain_file(path, "image file")
            paths.append(ImagePath(path))
            continue
        inside = sorted(_below(path), key=lambda found: found.relative_to(path).parts)
        if not inside:
            raise InvalidInputError(f"folder {str(path)!r} holds no image file ({', '.join(FORMATS)})")
        top = path.absolute().name
        paths += [ImagePath(p, (*reversed(p.relative_to(path).parent.parts), top)) for p in inside]
    return paths


def _below(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(where, name) for name in files if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def folder_labels(paths: Sequence[ImagePath], classes: Sequence[Sequence[str]], what: str) -> list[int] | None:
    """The label of each image, where folders are named like classes: `root/dog/1.png`; None where no folder is.

    The nearest folder that is named like a class counts.

    Args:
        classes: per class, the names that a folder of its images may have. Case, spaces, "_" and "-" do not count.
        what: whose classes they are, for error messages.

    Raises:
        InvalidInputError: some images lie in folders of classes and others do not.
        UnknownNameError: some images lie in folders of classes and others in folders of other names.
    """
    index = {folder_key(name): label for label, names in enumerate(classes) for name in names}
    labels = [next((index[k] for k in map(folder_key, p.folders) if k in index), None) for p in paths]
    if all(label is None for label in labels):
        return None
    for found, label in zip(paths, labels, strict=True):
        if label is not None:
            continue
        where = f"image {str(found.path)!r} does not lie in the folder of a class, as other images here do"
        if not found.folders:
            raise InvalidInputError(f"{where}; give all labels with --labels")
        known = [names[0] for names in classes]
        raise UnknownNameError(f"{where}: {UnknownNameError.near(f'class of {what}', found.folders[0], known)}")
    return [label for label in labels if label is not None]
