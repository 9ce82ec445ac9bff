"""Makes acert_zoo/data/sample_images from the data sets: `python scripts/make_samples.py [--data-root DIR]`.

Chosen without looking at any model: of every class (Tiny ImageNet: of every tenth class) the first test images, in
rounds of one per class. CIFAR-10 images that the data set's meta.json lists under `test_inexact` are passed over.
Running it again gives the same pixels and the same JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from acert_zoo._files import write_atomically
from acert_zoo.data.datasets import inexact_test_images, load_split
from acert_zoo.data.registration import dataset_info
from acert_zoo.data.samples import FOLDER

CLASS_ROUNDS = {"cifar10": (range(10), 10), "mnist": (range(10), 10), "tinyimagenet": (range(0, 200, 10), 1)}
SOURCES = {
    "cifar10": (
        "CIFAR-10 test set (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)",
        "no licence stated by the authors; research use with citation",
    ),
    "mnist": ("MNIST test set (Y. LeCun, C. Cortes, C. J. C. Burges)", "CC BY-SA 3.0"),
    "tinyimagenet": (
        "Tiny ImageNet validation set (Stanford CS231N), downsampled from ImageNet (J. Deng et al., 2009)",
        "ImageNet terms of access: non-commercial research and education only",
    ),
}


def choose(labels: np.ndarray, classes: range, rounds: int, excluded: list[int]) -> list[int]:
    """Indices: the first `rounds` images of each class that are not excluded, one of each class a round."""
    allowed = np.setdiff1d(np.arange(len(labels)), excluded)
    per_class = [allowed[labels[allowed] == c][:rounds] for c in classes]
    return [int(indices[r]) for r in range(rounds) for indices in per_class]


def make(name: str, data_root: str | None, folder: Path = FOLDER) -> None:
    """Writes `folder`/NAME.png and NAME.json."""
    images, labels = load_split(name, "test", data_root)
    classes, rounds = CLASS_ROUNDS[name]
    indices = choose(labels, classes, rounds, inexact_test_images(name, data_root))
    channels, height, width = dataset_info(name).input_shape
    columns = 10
    rows = math.ceil(len(indices) / columns)
    sheet = np.zeros((rows, columns, height, width, channels), dtype=np.uint8)
    sheet.reshape(-1, height, width, channels)[: len(indices)] = images[indices]
    pixels = sheet.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(folder / f"{name}.png", optimize=True)
    source, terms = SOURCES[name]
    values = {
        "dataset": name,
        "source": source,
        "license": terms,
        "tile": [height, width, channels],
        "columns": columns,
        "indices": indices,
        "labels": labels[indices].tolist(),
    }
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    write_atomically(folder / f"{name}.json", f"{{\n{lines}\n}}\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="folder of the data sets (default: $ACERT_ZOO_DATA)")
    arguments = parser.parse_args()
    for name in CLASS_ROUNDS:
        make(name, arguments.data_root)
        print(f"{name}: {(FOLDER / name).with_suffix('.png').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
