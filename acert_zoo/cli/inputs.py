"""From command-line options to a model and the images to certify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from acert_zoo.cli.input_images import Inputs
from acert_zoo.data.registration import dataset_info, dataset_names, register_dataset
from acert_zoo.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import nn

    from acert_zoo.zoo.model_info import ModelInfo

SPLITS = ("train", "val", "test")


def _register(context: click.Context, parameter: click.Parameter, path: str | None) -> str | None:
    """Registers the data set of --dataset-file before any other option is looked at."""
    return None if path is None else register_dataset(path).name


dataset_file_option = click.option(
    "--dataset-file",
    type=click.Path(),
    metavar="FILE",
    callback=_register,
    is_eager=True,
    expose_value=False,
    help="Registration of a data set of your own (docs/datasets.md), which --data may then name.",
)


def data_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options that name a data set: --data, --split, --limit, --data-root, --dataset-file."""
    for option in (
        dataset_file_option,
        click.option(
            "--data-root", type=click.Path(file_okay=False), help="Folder of the data sets. [$ACERT_ZOO_DATA]"
        ),
        click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the first N images."),
        click.option("--split", type=click.Choice(SPLITS), help="Split of --data.  [default: test]"),
        click.option(
            "--data",
            metavar="DATASET",
            help=f"A data set: {', '.join(dataset_names())}, or your own; or a .npy or .tar file, or a folder of such.",
        ),
    ):
        command = option(command)
    return command


def onnx_options(command: click.decorators.FC) -> click.decorators.FC:
    """The options that say how an ONNX classifier's input is normalised: --mean, --std."""
    for option in (
        click.option("--std", metavar="S,S,...", help="... and divided by this standard deviation of each channel."),
        click.option("--mean", metavar="M,M,...", help="With --onnx: pixels are taken less this mean of each channel,"),
    ):
        command = option(command)
    return command


def _numbers(text: str | None, option: str) -> list[float] | None:
    try:
        return None if text is None else [float(word) for word in text.split(",")]
    except ValueError as error:
        raise InvalidInputError(f"{option} {text!r} is not a list of numbers such as 0.49,0.48,0.45") from error


def read_model(model: str | None, onnx: Path | None, mean: str | None = None, std: str | None = None) -> nn.Module:
    """The model of --model or --onnx, in eval mode; `mean` and `std` are the texts of --mean and --std."""
    if onnx is None and (mean is not None or std is not None):
        raise click.UsageError("--mean and --std are for --onnx; models of the zoo normalise their input themselves.")
    if (model is None) == (onnx is None):
        raise click.UsageError("Name one model: --model NAME, or --onnx FILE.")
    if model is not None:
        from acert_zoo import load_model

        return load_model(model)
    from acert_zoo.network.onnx.files import load_onnx

    return load_onnx(str(onnx), mean=_numbers(mean, "--mean"), std=_numbers(std, "--std"))


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
    skip_unreadable: bool = False,
    part: Callable[[int], slice] | None = None,
) -> Inputs:
    """The images that the options name; with none named, the bundled images of the model's data set.

    Args:
        part: which rows of so many images are wanted, all by default; others are not read.
    """
    if files and data:
        raise click.UsageError("Name image files or --data, not both.")
    if split and not data:
        raise click.UsageError("--split is for --data.")
    if data_root and not data:
        raise click.UsageError(f"--data-root is for --data; name a data set: {', '.join(dataset_names())}.")
    at_path = data is not None and data not in dataset_names() and Path(data).exists()
    if labels and not files and not at_path:
        raise click.UsageError("--labels is for image files; data sets bring their own.")
    for name, given in (("--resize", resize), ("--skip-unreadable", skip_unreadable)):
        if given and not files and not (name == "--resize" and at_path):
            raise click.UsageError(f"{name} is for image files.")
    if files:
        from acert_zoo.cli.image_files import read_image_files

        return read_image_files(
            files,
            input_shape,
            info.dataset if info else None,
            labels=labels,
            limit=limit,
            resize=resize,
            skip_unreadable=skip_unreadable,
            part=part,
        )
    if data and at_path:
        from acert_zoo.data.open_source import open_source

        classes_of = info.dataset if info else None
        source = open_source(data, input_shape, split=split, labels=labels, classes_of=classes_of, resize=resize)
        n = len(source) if limit is None else min(limit, len(source))
        chosen = range(n) if part is None else range(n)[part(n)]
        pixels, known = source.read(chosen)
        return Inputs(pixels, known, source.ids(chosen), source.description, source.dataset, source.split)
    if data:
        return _dataset(data, split or "test", limit, data_root, part)
    if info is None or info.dataset is None:
        raise InvalidInputError("the model names no data set: name image files or --data")
    from acert_zoo import sample_data

    images, targets = sample_data(info.dataset, limit)
    rows = slice(None) if part is None else part(len(images))
    ids = [str(i) for i in range(len(images))][rows]
    return Inputs(images[rows], targets[rows], ids, f"bundled {info.dataset} test images", info.dataset, "samples")


def _dataset(
    name: str, split: str, limit: int | None, data_root: str | None, part: Callable[[int], slice] | None
) -> Inputs:
    import numpy as np
    import torch

    from acert_zoo.data.datasets import load_split, to_pixels

    info = dataset_info(name, data_root)
    if info.files is not None:  # registered beside its data: its classes are to be known without --data-root as well
        register_dataset(info)
    images, labels = load_split(name, split, data_root)
    n = len(images[:limit])
    rows = slice(0, n) if part is None else part(n)
    images, labels = np.array(images[rows]), labels[rows]  # copied: memory maps are read-only
    description = f"{name} {split} images"
    ids = [str(i) for i in range(rows.start, rows.start + len(images))]
    return Inputs(to_pixels(images), torch.from_numpy(labels.copy()), ids, description, name, split)
