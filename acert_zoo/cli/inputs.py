"""From command-line options to a model and the images to certify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acert_zoo._files import read_text
from acert_zoo.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from acert_zoo.zoo.model_info import ModelInfo

SPLITS = ("train", "val", "test")
DATASETS = ("mnist", "fashionmnist", "cifar10", "tinyimagenet")  # as in data.py, which imports NumPy


@dataclass(frozen=True)
class Inputs:
    """Images float32 [N, C, H, W] in [0, 1], labels int64 [N] or None, one id an image, and where they came from."""

    images: Tensor
    labels: Tensor | None
    ids: list[str]
    description: str
    dataset: str | None = None
    split: str | None = None


def data_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options that name a data set: --data, --split, --limit, --data-root."""
    for option in (
        click.option(
            "--data-root", type=click.Path(file_okay=False), help="Folder of the data sets. [$ACERT_ZOO_DATA]"
        ),
        click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the first N images."),
        click.option("--split", type=click.Choice(SPLITS), help="Split of --data.  [default: test]"),
        click.option("--data", metavar="DATASET", help=f"A full data set: {', '.join(DATASETS)}."),
    ):
        command = option(command)
    return command


def read_model(model: str | None, onnx: Path | None) -> nn.Module:
    """The model of --model or --onnx, in eval mode."""
    if (model is None) == (onnx is None):
        raise click.UsageError("Name one model: --model NAME, or --onnx FILE.")
    if model is not None:
        from acert_zoo import load_model

        return load_model(model)
    from acert_zoo.network.onnx_files import load_onnx

    return load_onnx(str(onnx))


def read_inputs(
    info: ModelInfo | None,
    input_shape: Sequence[int] | None,
    files: Sequence[str],
    *,
    data: str | None,
    split: str | None,
    limit: int | None,
    data_root: str | None,
    labels: str | None = None,
    resize: bool = False,
) -> Inputs:
    """The images that the options name; with none named, the bundled images of the model's data set."""
    if files and data:
        raise click.UsageError("Name image files or --data, not both.")
    if split and not data:
        raise click.UsageError("--split is for --data.")
    if data_root and not data:
        raise click.UsageError(f"--data-root is for --data; name a data set: {', '.join(DATASETS)}.")
    if labels and not files:
        raise click.UsageError("--labels is for image files; data sets bring their own.")
    if resize and not files:
        raise click.UsageError("--resize is for image files.")
    if files:
        return _image_files(files, input_shape, labels, limit, resize)
    if data:
        return _dataset(data, split or "test", limit, data_root)
    if info is None or info.dataset is None:
        raise InvalidInputError("the model names no data set: name image files or --data")
    from acert_zoo import sample_data

    images, targets = sample_data(info.dataset, limit)
    ids = [str(i) for i in range(len(images))]
    return Inputs(images, targets, ids, f"bundled {info.dataset} test images", info.dataset, "samples")


def _image_files(
    files: Sequence[str], input_shape: Sequence[int] | None, labels: str | None, limit: int | None, resize: bool
) -> Inputs:
    import torch

    from acert_zoo.data.image_files import load_images
    from acert_zoo.data.image_paths import image_paths

    if input_shape is None:
        raise InvalidInputError("the model does not say which image size it takes; use --data")
    paths = [found.path for found in image_paths(files)][:limit]
    targets = None
    if labels is not None:
        values = _parse_labels(labels)
        if len(values) != len(paths):
            raise InvalidInputError(f"--labels gives {len(values)} labels for {len(paths)} images")
        targets = torch.tensor(values, dtype=torch.int64)
    images = load_images(paths, input_shape, resize=resize)
    return Inputs(images, targets, [str(p) for p in paths], "image files")


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
                f"{source}: {word.strip()!r} is not a label; 3,8 or a file with one number a line is"
            )
        labels.append(int(word))
    return labels


def _dataset(name: str, split: str, limit: int | None, data_root: str | None) -> Inputs:
    import numpy as np
    import torch

    from acert_zoo.data.datasets import load_split, to_pixels

    images, labels = load_split(name, split, data_root)
    images, labels = np.array(images[:limit]), labels[:limit]  # copied: memory maps are read-only
    description = f"{name} {split} images"
    ids = [str(i) for i in range(len(images))]
    return Inputs(to_pixels(images), torch.from_numpy(labels.copy()), ids, description, name, split)
