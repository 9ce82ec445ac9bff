"""Loaders, data sets and lists as one tensor: the same pixels and labels, whatever holds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from acert_zoo.data.image_collections import gather_images
from acert_zoo.errors import InvalidInputError

SHAPE = (3, 2, 2)
BYTES = np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3) * 7
PIXELS = torch.tensor(BYTES).permute(0, 3, 1, 2).float() / 255
LABELS = torch.tensor([2, 0, 1])


class Pictures(Dataset):
    """(picture, label) pairs, as torchvision's data sets give them without a transform."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(BYTES[i]), int(LABELS[i])


class Alone(Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> torch.Tensor:
        return PIXELS[i]


@pytest.mark.parametrize(
    "images",
    [
        TensorDataset(PIXELS, LABELS),
        DataLoader(TensorDataset(PIXELS, LABELS), batch_size=2),
        Pictures(),
        TensorDataset(PIXELS, LABELS.to(torch.int32)),
    ],
    ids=["tensors", "loader", "pictures", "int32"],
)
def test_data_sets_bring_their_labels(images: Any) -> None:
    pixels, labels = gather_images(images, None, SHAPE)
    assert torch.equal(pixels, PIXELS)
    assert [int(label) for label in labels] == LABELS.tolist()
    assert gather_images(images, [1, 1, 1], SHAPE)[1] == [1, 1, 1]


@pytest.mark.parametrize(
    "images",
    [
        [Image.fromarray(array) for array in BYTES],
        tuple(PIXELS),
        [image.numpy() for image in PIXELS],
        [PIXELS[0], Image.fromarray(BYTES[1]), PIXELS[2].numpy()],
        Alone(),
        DataLoader(Alone(), batch_size=1),
        DataLoader(TensorDataset(PIXELS), batch_size=3),
    ],
    ids=["pictures", "tensors", "arrays", "mixed", "data set", "loader", "tensors alone"],
)
def test_images_alone_have_no_labels(images: Any) -> None:
    pixels, labels = gather_images(images, None, SHAPE)
    assert torch.equal(pixels, PIXELS)
    assert labels is None


def test_tensors_and_arrays_are_passed_on_as_they_are() -> None:
    assert gather_images(PIXELS, LABELS, SHAPE) == (PIXELS, LABELS)
    array = PIXELS.numpy()
    assert gather_images(array, None, None)[0] is array
    assert gather_images("cat.png", None, None)[0] == "cat.png"  # check_images refuses it


def test_one_picture_is_a_batch_of_one() -> None:
    assert torch.equal(gather_images(Image.fromarray(BYTES[0]), None, None)[0], PIXELS[:1])
    grey = Image.fromarray(BYTES[0, ..., 0])
    assert gather_images(grey, None, None)[0].shape == (1, 1, 2, 2)
    assert gather_images(grey, None, SHAPE)[0].shape == (1, 3, 2, 2)
    deep = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    assert gather_images(deep, None, (1, 1, 2))[0].flatten().tolist() == [0, 1]


def test_nothing_is_an_empty_batch() -> None:
    for images in ([], DataLoader(TensorDataset(PIXELS[:0]))):
        assert gather_images(images, None, SHAPE)[0].shape == (0, 3, 2, 2)


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            yield PIXELS[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (DataLoader(Alone(), shuffle=True), "shuffles"),
        (Endless(), "without a length"),
        ([PIXELS[0], PIXELS[0, :, :1]], "different shapes"),
        ([PIXELS[0], "cat.png"], "image 1 is a str"),
        ([Image.fromarray(BYTES[0]).resize((3, 2))], "picture 0' is 3x2 .* takes 2x2; convert it before"),
        ([Image.fromarray(BYTES[0]).convert("CMYK")], "colour mode CMYK.*convert it before"),
        ([Image.fromarray(BYTES[0, ..., 0].astype(np.float32))], "colour mode F"),
        (TensorDataset(PIXELS, LABELS, LABELS), "3 values an item"),
        (DataLoader([{"x": 1}], collate_fn=lambda items: items[0]), "gives dict"),
    ],
)
def test_what_cannot_be_used_is_said(images: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        gather_images(images, None, SHAPE)
