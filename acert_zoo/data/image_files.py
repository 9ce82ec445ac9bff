"""PNG and JPEG files as raw pixels: exact where the file allows it, refused (or converted on request) where not."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from acert_zoo.data.datasets import to_pixels
from acert_zoo.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FORMATS = ("PNG", "JPEG")
SUFFIXES = (".png", ".jpg", ".jpeg")

# Pillow modes whose conversion to RGB loses nothing. CMYK, YCbCr, 16-bit and float modes are not among them.
_EXACT_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")


def image_paths(arguments: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The image files that `arguments` name: files as they are, folders by their PNG and JPEG files in name order.

    Raises:
        InvalidInputError: a path does not exist, or a folder holds no PNG or JPEG file.
    """
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise InvalidInputError(f"folder {str(path)!r} holds no PNG or JPEG file")
            paths += inside
        elif path.is_file():
            paths.append(path)
        elif path.exists():
            raise InvalidInputError(f"image file {str(path)!r} is a device or a pipe; a plain file is needed")
        else:
            raise InvalidInputError(f"image file {str(path)!r} does not exist")
    return paths


def load_images(paths: Sequence[str | os.PathLike[str]], input_shape: Sequence[int], *, resize: bool = False) -> Tensor:
    """Raw pixels of PNG or JPEG files, float32 [N, C, H, W] in [0, 1]: a byte k becomes fl32(k / 255).

    Args:
        paths: the files, in the order of the result.
        input_shape: (C, H, W) that the model takes; C is 1 (greyscale) or 3 (RGB).
        resize: scale an image of another size (bilinear, antialiased, aspect ratio not kept), turn colour into grey
            for C = 1, drop transparency, and convert colour modes that are not 8-bit RGB. Without it, only
            conversions that change no pixel value are made; everything else is an error.

    Raises:
        InvalidInputError: naming the file: unreadable, truncated, not PNG or JPEG, absurdly large, animated, or of a
            size or colour mode that the model does not take.
    """
    channels, height, width = input_shape
    if channels not in (1, 3):
        raise InvalidInputError(f"image files hold 1 or 3 channels; the model takes {channels}")
    arrays = np.empty((len(paths), height, width, channels), dtype=np.uint8)
    for i, path in enumerate(paths):
        arrays[i] = _read(path, channels, height, width, resize)
    return to_pixels(arrays)


def _read(path: str | os.PathLike[str], channels: int, height: int, width: int, resize: bool) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = os.fspath(path)
    try:
        with warnings.catch_warnings():
            # An image too large to be decoded in good conscience is an error here, not a warning.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                if getattr(file, "n_frames", 1) > 1:
                    raise InvalidInputError(f"image file {name!r} is animated; a single image is needed")
                file.load()
                image: Image.Image = ImageOps.exif_transpose(file)
    except UnidentifiedImageError as error:
        raise InvalidInputError(f"image file {name!r} is not a readable PNG or JPEG file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidInputError(f"image file {name!r} is too large to be decoded: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways of saying "broken"
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"image file {name!r} cannot be read: {error}") from error

    if image.size != (width, height) and not resize:
        raise InvalidInputError(
            f"image file {name!r} is {image.width}x{image.height} (width x height); "
            f"the model takes {width}x{height}; --resize scales it"
        )
    pixels = _channels(image, name, channels, resize)
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8).reshape(height, width, channels)


def _channels(image: Image, name: str, channels: int, convert: bool) -> Image:
    """`image` in mode "RGB" or "L", as the model takes; InvalidInputError where that changes what it shows."""
    if image.mode not in _EXACT_MODES and not convert:
        raise InvalidInputError(
            f"image file {name!r} has colour mode {image.mode}; 8-bit greyscale or RGB is needed; --resize converts it"
        )
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255) and not convert:
            raise InvalidInputError(f"image file {name!r} is partly transparent; --resize drops its transparency")
    if image.mode == "L" and channels == 1:
        return image
    rgb = image.convert("RGB")
    if channels == 3:
        return rgb
    red, green, blue = (np.asarray(band) for band in rgb.split())
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return rgb.getchannel(0)
    if not convert:
        raise InvalidInputError(
            f"image file {name!r} is in colour; the model takes greyscale images; --resize converts it"
        )
    return rgb.convert("L")
