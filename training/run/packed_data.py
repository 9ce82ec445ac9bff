"""CIFAR-10's training images in two files of less than 64 MiB each, to be carried to a machine that has nothing else.

Lossless: each image is predicted from its neighbours (left + above - above left, green subtracted from red and blue
before), and what remains, modulo 256, is compressed with bz2. `packed.json` holds the labels, and the sha256 of the
images, which `unpack` checks.
"""

from __future__ import annotations

import bz2
import hashlib
import json
from pathlib import Path

import numpy as np

from acert_zoo._files import read_plain, write_atomically
from acert_zoo._json import parse_json
from acert_zoo.data.array_files import save_split
from acert_zoo.errors import InvalidInputError

PARTS = 2
INDEX = "packed.json"
LARGEST_PART = 64 * 2**20  # bytes
LARGEST = 2**31  # bytes of unpacked images


def residuals(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] as differences from a prediction, uint8 [N, C, H, W]; arithmetic modulo 256."""
    planes = images.transpose(0, 3, 1, 2).copy()
    if planes.shape[1] == 3:
        planes[:, 0] -= planes[:, 1]
        planes[:, 2] -= planes[:, 1]
    across = planes.copy()
    across[..., 1:] -= planes[..., :-1]
    down = across.copy()
    down[..., 1:, :] -= across[..., :-1, :]
    return down


def images_of(residual: np.ndarray) -> np.ndarray:
    """The inverse of `residuals`."""
    planes = residual.cumsum(2, dtype=np.uint8).cumsum(3, dtype=np.uint8)
    if planes.shape[1] == 3:
        planes[:, 0] += planes[:, 1]
        planes[:, 2] += planes[:, 1]
    return planes.transpose(0, 2, 3, 1).copy()


def pack(images: np.ndarray, labels: np.ndarray, folder: Path) -> list[Path]:
    """Writes the parts and `packed.json` into `folder`; their paths.

    Raises:
        InvalidInputError: a part is too large to be carried.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, rows in enumerate(np.array_split(np.arange(len(labels)), PARTS)):
        part = images[rows[0] : rows[-1] + 1] if len(rows) else images[:0]
        content = bz2.compress(residuals(part).tobytes())
        if len(content) > LARGEST_PART:
            raise InvalidInputError(f"part {k} has {len(content):,} bytes, at most {LARGEST_PART:,} can be carried")
        paths.append(folder / f"packed-{k}.bz2")
        write_atomically(paths[-1], content)
    index = {"shape": list(images.shape), "labels": labels.tolist(), "sha256": _sha256(images), "parts": PARTS}
    write_atomically(folder / INDEX, json.dumps(index).encode())
    return [*paths, folder / INDEX]


def unpack(folder: Path, target: Path) -> None:
    """Writes `train_images.npy` and `train_labels.npy` into `target`, unless they are there.

    Raises:
        InvalidInputError: the parts are missing, or do not give the images that were packed.
    """
    if (target / "train_images.npy").exists():
        return
    try:
        index = parse_json(read_plain(folder / INDEX, 2**24).decode())
        n, height, width, channels = index["shape"]
        if not 0 < n * height * width * channels <= LARGEST or index["parts"] != PARTS or len(index["labels"]) != n:
            raise ValueError(f"{INDEX} has sizes that cannot be")
        sizes = [len(rows) for rows in np.array_split(np.arange(n), PARTS)]
        images = np.concatenate(
            [
                images_of(_part(folder / f"packed-{k}.bz2", (size, channels, height, width)))
                for k, size in enumerate(sizes)
            ]
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InvalidInputError(f"packed data in {str(folder)!r} cannot be read: {error}") from None
    if _sha256(images) != index["sha256"]:
        raise InvalidInputError(f"packed data in {str(folder)!r} are not those that were packed (sha256)")
    save_split(target, "train", images, np.array(index["labels"], dtype=np.int64))


def _part(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    size = int(np.prod(shape))
    content = bz2.BZ2Decompressor().decompress(read_plain(path, LARGEST_PART), size + 1)
    if len(content) != size:
        raise ValueError(f"{path.name} gives {len(content):,} bytes or more, {size:,} are needed")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _sha256(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
