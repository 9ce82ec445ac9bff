"""Making a data set's NumPy files from what users have: torchvision's files or downloads, the tiny-imagenet-200 folder.

Every source is converted once into `<root>/<name>/{train,test}_{images,labels}.npy` and `meta.json`, the one layout
that is read, by memory map, ever after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from acert_zoo._files import open_plain, read_text, write_atomically
from acert_zoo.data.array_files import save_one_by_one, save_split
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.data.registration import DATA_ENVIRONMENT_VARIABLE
from acert_zoo.errors import DatasetNotFoundError, MissingDependencyError

TORCHVISION_CLASSES = {"cifar10": "CIFAR10", "mnist": "MNIST"}
TORCHVISION_FOLDERS = {"cifar10": "cifar-10-batches-py", "mnist": "MNIST/raw"}
TINY_FOLDER = "tiny-imagenet-200"
TINY_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


def prepare(info: DatasetInfo, root: Path, folder: Path, *, download: bool) -> None:
    """Writes the NumPy files of one of the zoo's data sets below `root`.

    Args:
        folder: where files of another data set were looked for, for the error message.

    Raises:
        DatasetNotFoundError: no source is there, downloading is not allowed or fails, `root` cannot be written.
        MissingDependencyError: torchvision is needed and not installed.
    """
    with _disk_errors(info, root):
        if info.name == "tinyimagenet":
            _prepare_tiny(info, root)
        elif info.name in TORCHVISION_CLASSES:
            _prepare_torchvision(info, root, download)
        else:
            raise DatasetNotFoundError(
                f"data set {info.name!r} is not in {folder}: there are neither {{train,test}}_{{images,labels}}.npy "
                "nor folders train/<class> and test/<class> with images"
            )


def _not_found(info: DatasetInfo, root: Path, also: str, how: str) -> DatasetNotFoundError:
    return DatasetNotFoundError(
        f"data set {info.name!r} is not in {root}: neither {info.name}/*.npy nor {also} is there. {how}, or name the "
        f"folder of the data sets with --data-root or ${DATA_ENVIRONMENT_VARIABLE}"
    )


@contextmanager
def _disk_errors(info: DatasetInfo, root: Path) -> Iterator[None]:
    try:
        yield
    except DatasetNotFoundError:
        raise
    except OSError as error:
        raise DatasetNotFoundError(f"data set {info.name!r} cannot be prepared in {root}: {error}") from error


def _prepare_torchvision(info: DatasetInfo, root: Path, download: bool) -> None:
    there = (root / TORCHVISION_FOLDERS[info.name]).is_dir()
    if not there and not download:
        raise _not_found(
            info,
            root,
            TORCHVISION_FOLDERS[info.name],
            "Download it (in Python download=True; commands do so when no folder is named)",
        )
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingDependencyError(
            f"data set {info.name!r} is read or downloaded through torchvision: pip install torchvision"
        ) from error
    kind = getattr(datasets, TORCHVISION_CLASSES[info.name])
    root.mkdir(parents=True, exist_ok=True)
    for train in (False, True):
        try:
            source: Any = kind(root, train=train, download=download)
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            what = "downloaded" if download else "read"
            raise DatasetNotFoundError(
                f"data set {info.name!r} could not be {what} in {root} by torchvision: {error}. Or name the folder of "
                f"the data sets with --data-root or ${DATA_ENVIRONMENT_VARIABLE}"
            ) from error
        pixels = np.asarray(source.data)
        images = pixels[..., None] if pixels.ndim == 3 else pixels
        stem = "train" if train else "test"
        save_split(root / info.name, stem, images, np.asarray(source.targets))
    _save_meta(root / info.name, list(source.classes))


def _prepare_tiny(info: DatasetInfo, root: Path) -> None:
    """Tiny ImageNet from its official folder; labels are indices into the sorted WordNet ids, test is its val split."""
    source = root / TINY_FOLDER
    if not (source / "val" / "val_annotations.txt").is_file():
        how = f"Fetch {TINY_URL} and unpack it there (its terms: non-commercial research and education)"
        raise _not_found(info, root, TINY_FOLDER, how)
    ids = sorted(read_text(source / "wnids.txt").split())
    index = {wnid: i for i, wnid in enumerate(ids)}
    rows = [line.split("\t") for line in read_text(source / "val" / "val_annotations.txt").splitlines() if line]
    if len(ids) != info.num_classes or any(row[1] not in index for row in rows):
        raise DatasetNotFoundError(f"{source}: wnids.txt or val_annotations.txt is not Tiny ImageNet's")
    test = [(source / "val" / "images" / row[0], index[row[1]]) for row in rows]
    train = [(path, index[wnid]) for wnid in ids for path in _numbered(source / "train" / wnid / "images")]
    for stem, files in (("test", test), ("train", train)):
        _save_decoded(info, root / info.name, stem, files)
    words = dict(line.split("\t", 1) for line in read_text(source / "words.txt").splitlines() if "\t" in line)
    _save_meta(root / info.name, [{"wnid": wnid, "words": words.get(wnid, wnid)} for wnid in ids])


def _numbered(folder: Path) -> list[Path]:
    """The JPEG files n01443537_0, _1, _2, ... in the order of their numbers."""
    return sorted(folder.glob("*.JPEG"), key=lambda path: int(path.stem.rpartition("_")[2]))


def _save_decoded(info: DatasetInfo, folder: Path, stem: str, files: list[tuple[Path, int]]) -> None:
    from PIL import Image

    def decoded() -> Iterator[np.ndarray]:
        for path, _ in files:
            with open_plain(path) as file, Image.open(file) as image:
                yield np.asarray(image.convert("RGB"))

    save_one_by_one(info, folder, stem, decoded(), [label for _, label in files])


def _save_meta(folder: Path, classes: list[Any]) -> None:
    if not (folder / "meta.json").exists():
        write_atomically(folder / "meta.json", json.dumps({"classes": classes}, indent=1).encode())
