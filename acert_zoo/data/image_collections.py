"""Images as users hold them - data loaders, data sets, lists of pictures or tensors - gathered into one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from acert_zoo.data.image_files import picture_pixels
from acert_zoo.errors import InvalidInputError


def gather_images(images: Any, labels: Any, input_shape: Sequence[int] | None) -> tuple[Any, Any]:
    """(images, labels) for `check_images`: a tensor or array as it is, everything else as one tensor [N, C, H, W].

    Args:
        images: a tensor or array; a `DataLoader` or `Dataset` of images or (image, label) pairs; a list or tuple of
            pictures (`PIL.Image`), tensors or arrays [C, H, W]; or one picture.
        labels: where None, those of the loader or data set, if it has any.
        input_shape: (C, H, W) that the model takes, where it is known: pictures are converted to it if that changes
            no pixel.

    Raises:
        InvalidInputError: a loader that shuffles, items that are no images, or pictures that do not fit.
    """
    if isinstance(images, (Tensor, np.ndarray)):
        return images, labels
    if isinstance(images, DataLoader):
        if isinstance(images.sampler, RandomSampler):
            raise InvalidInputError("the DataLoader shuffles: images could not be told apart; use shuffle=False")
        return _from_loader(images, labels, input_shape)
    if isinstance(images, Dataset):
        if not hasattr(images, "__len__"):
            raise InvalidInputError("a data set without a length cannot be certified; give a DataLoader over a part")
        return _from_items((images[i] for i in range(len(images))), labels, input_shape)  # type: ignore[arg-type]
    if _is_picture(images):
        return _stack([_pixels(images, input_shape, 0)]), labels
    if isinstance(images, (list, tuple)):
        return _stack([_pixels(item, input_shape, i) for i, item in enumerate(images)], input_shape), labels
    return images, labels  # refused, by name of its type, by check_images


def _from_loader(loader: Iterable[Any], labels: Any, input_shape: Sequence[int] | None) -> tuple[Any, Any]:
    parts, targets = [], []
    for batch in loader:
        pixels, target = _pair(batch)
        if not isinstance(pixels, Tensor):
            raise InvalidInputError(f"the DataLoader gives {type(pixels).__name__}; expected batches of tensors")
        parts.append(pixels)
        if target is not None:
            targets.append(torch.as_tensor(target).reshape(-1))
    if not parts:
        return _stack([], input_shape), labels
    own = torch.cat(targets) if targets else None
    return torch.cat(parts), own if labels is None else labels


def _from_items(items: Iterable[Any], labels: Any, input_shape: Sequence[int] | None) -> tuple[Any, Any]:
    pairs = [_pair(item) for item in items]
    pixels = _stack([_pixels(image, input_shape, i) for i, (image, _) in enumerate(pairs)], input_shape)
    if labels is not None or not pairs or any(label is None for _, label in pairs):
        return pixels, labels
    try:
        return pixels, [int(label) for _, label in pairs]
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the labels of the data set are no integers: {error}") from None


def _pair(item: Any) -> tuple[Any, Any]:
    """(image, label) of what a loader or data set gives; label None where it gives images alone."""
    if not isinstance(item, (list, tuple)):
        return item, None
    if len(item) == 1:
        return item[0], None
    if len(item) != 2:
        raise InvalidInputError(f"the data give {len(item)} values an item; expected an image, or an image and a label")
    return item[0], item[1]


def _is_picture(value: Any) -> bool:
    try:
        from PIL.Image import Image
    except ImportError:  # then nobody can hold one
        return False
    return isinstance(value, Image)


def _pixels(item: Any, input_shape: Sequence[int] | None, i: int) -> Tensor:
    """One image [C, H, W]."""
    if _is_picture(item):
        shape = input_shape or (3 if len(item.getbands()) >= 3 else 1, item.height, item.width)
        return picture_pixels(item, shape, f"picture {i}")
    if isinstance(item, np.ndarray):
        item = torch.from_numpy(np.ascontiguousarray(item))
    if not isinstance(item, Tensor):
        raise InvalidInputError(
            f"image {i} is a {type(item).__name__}; expected a tensor or array [C, H, W] or a PIL.Image"
        )
    return item


def _stack(images: list[Tensor], input_shape: Sequence[int] | None = None) -> Tensor:
    if not images:
        return torch.empty((0, *(input_shape or (0, 0, 0))))
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        several = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise InvalidInputError(f"the images have different shapes: {several}")
    return torch.stack(images)
