"""Image files as raw pixels: exact where the file allows it, refused (or converted on request) where not.

One rule for every depth: a sample k of b bits becomes k / (2^b - 1), rounded once to float32. Sizes, transparency and
colour that a model does not take are errors unless `resize` asks for the conversion; docs/images.md has the whole list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from acert_zoo.data.image_decoding import DEEP_GREY_MODES, Decoded, ImageFileLike, decode, image_name
from acert_zoo.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# Pillow modes that convert to RGB without loss. CMYK, YCbCr, LAB and HSV do not.
_EXACT_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, as Pillow's own conversion to grey


@dataclass(frozen=True)
class ImageBatch:
    """What `read_images` found.

    Attributes:
        pixels: float32 [N, C, H, W] in [0, 1] of the N files that could be read.
        read: positions of these among the paths asked for.
        unreadable: why each other file could not be read, by its position.
        stretched: how many of the N were scaled by different factors in height and width.
    """

    pixels: Tensor
    read: list[int]
    unreadable: dict[int, str]
    stretched: int


def load_images(paths: Sequence[ImageFileLike], input_shape: Sequence[int], *, resize: bool = False) -> Tensor:
    """Raw pixels of image files, float32 [N, C, H, W] in [0, 1].

    Args:
        paths: PNG, JPEG, WebP, BMP, TIFF or GIF files, or the content of such, in the order of the result.
        input_shape: (C, H, W) that the model takes; C is 1 (greyscale) or 3 (RGB).
        resize: scale an image of another size (bilinear, antialiased, aspect ratio not kept), turn colour into grey
            for C = 1, drop transparency, and convert other colour models to RGB. Without it, only conversions that
            change no pixel value are made; everything else is an error.

    Raises:
        InvalidInputError: naming every file that cannot be read: not a plain file, truncated, of another format, of
            more than 2^25 pixels, animated, or of a size or colour mode that the model does not take.
    """
    batch = read_images(paths, input_shape, resize=resize)
    reasons = list(batch.unreadable.values())
    if len(reasons) == 1:
        raise InvalidInputError(reasons[0])
    if reasons:
        raise InvalidInputError(f"{len(reasons)} of {len(paths)} image files cannot be used:\n" + "\n".join(reasons))
    return batch.pixels


def picture_pixels(picture: Image, input_shape: Sequence[int], name: str) -> Tensor:
    """float32 pixels [C, H, W] of a `PIL.Image`, by the rules for files but without any that change what it shows.

    Raises:
        InvalidInputError: its size or colour mode is not the model's, or it has more than 8 bits a sample.
    """
    import torch

    channels, height, width = input_shape
    if channels not in (1, 3):
        raise InvalidInputError(f"pictures hold 1 or 3 channels; the model takes {channels}")
    if picture.mode in DEEP_GREY_MODES:
        samples = np.asarray(picture).astype(np.uint16)[..., None]
        decoded = Decoded(None, samples)
    elif picture.mode in ("I", "F"):
        raise InvalidInputError(f"{name} has colour mode {picture.mode}, whose range is not fixed; give a tensor")
    else:
        decoded = Decoded(picture)
    try:
        pixels = _fit(decoded, name, channels, height, width, False)
    except InvalidInputError as error:
        text = str(error).removeprefix("image file ").split("; --resize")[0]
        raise InvalidInputError(f"{text}; convert it before") from None
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def read_images(paths: Sequence[ImageFileLike], input_shape: Sequence[int], *, resize: bool) -> ImageBatch:
    """As `load_images`, but files that cannot be read are named in the result."""
    import torch

    channels, height, width = input_shape
    if channels not in (1, 3):
        raise InvalidInputError(f"image files hold 1 or 3 channels; the model takes {channels}")
    pixels = np.empty((len(paths), height, width, channels), dtype=np.float32)
    read: list[int] = []
    unreadable: dict[int, str] = {}
    stretched = 0
    for position, path in enumerate(paths):
        try:
            image = decode(path)
            pixels[len(read)] = _fit(image, image_name(path), channels, height, width, resize)
        except InvalidInputError as error:
            unreadable[position] = str(error)
            continue
        stretched += image.size[0] * height != image.size[1] * width
        read.append(position)
    found = torch.from_numpy(pixels[: len(read)]).permute(0, 3, 1, 2)
    return ImageBatch(found, read, unreadable, stretched)


def _fit(decoded: Decoded, name: str, channels: int, height: int, width: int, resize: bool) -> np.ndarray:
    """float32 [H, W, C] in [0, 1], as the model takes it; an error where that changes what the file shows."""
    if decoded.size != (width, height) and not resize:
        raise InvalidInputError(
            f"image file {name!r} is {decoded.size[0]}x{decoded.size[1]} (width x height); the model takes "
            f"{width}x{height}; --resize scales it (the aspect ratio is not kept)"
        )
    if decoded.samples is not None:
        return _fit_deep(decoded.samples, decoded.transparent, name, channels, height, width, resize)
    from PIL import Image

    assert decoded.image is not None
    pixels = _channels(decoded.image, name, channels, resize)
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels).astype(np.float32) / np.float32(255)


def _fit_deep(
    samples: np.ndarray, transparent: bool, name: str, channels: int, height: int, width: int, resize: bool
) -> np.ndarray:
    from PIL import Image

    if transparent and not resize:
        raise _transparent(name)
    if channels == 1 and samples.shape[2] == 3:
        if (samples == samples[..., :1]).all():
            samples = samples[..., :1]
        elif not resize:
            raise _in_colour(name)
    values = (samples / 65535).astype(np.float32)  # float64 quotient, rounded once more: the nearest float32
    if channels < values.shape[2]:
        values = (samples @ _GREY_WEIGHTS / 65535).astype(np.float32)[..., None]
    if values.shape[:2] != (height, width):
        bands = [
            Image.fromarray(np.ascontiguousarray(values[..., c])).resize((width, height), Image.Resampling.BILINEAR)
            for c in range(values.shape[2])
        ]
        values = np.stack([np.asarray(band) for band in bands], axis=2).clip(0, 1)
    return np.broadcast_to(values, (height, width, channels))


def _channels(image: Image, name: str, channels: int, convert: bool) -> Image:
    """`image` in mode "RGB" or "L", as the model takes; InvalidInputError where that changes what it shows."""
    if image.mode not in _EXACT_MODES and not convert:
        raise InvalidInputError(
            f"image file {name!r} has colour mode {image.mode}; greyscale or RGB is needed; --resize converts it"
        )
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255) and not convert:
            raise _transparent(name)
    if image.mode == "L" and channels == 1:
        return image
    try:
        rgb = image.convert("RGB")
    except ValueError as error:
        raise InvalidInputError(f"image file {name!r} has colour mode {image.mode}: {error}; save it as RGB") from None
    if channels == 3:
        return rgb
    red, green, blue = (np.asarray(band) for band in rgb.split())
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return rgb.getchannel(0)
    if not convert:
        raise _in_colour(name)
    return rgb.convert("L")


def _transparent(name: str) -> InvalidInputError:
    return InvalidInputError(f"image file {name!r} is partly transparent; --resize drops its transparency")


def _in_colour(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"image file {name!r} is in colour; the model takes greyscale images; --resize converts it"
    )
