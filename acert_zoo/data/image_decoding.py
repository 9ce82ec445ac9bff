"""One image file, opened: which files are read at all, their samples upright, 16 bits where they have them."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from acert_zoo._files import check_plain_file
from acert_zoo.errors import InvalidInputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_PIXELS = 2**25  # the header alone decides: decoding 80 million pixels takes 20 s, and no model here takes so many

DEEP_GREY_MODES = ("I;16", "I;16B", "I;16L", "I;16N")
# How files lay out samples of more than 8 bits (of which Pillow drops the low byte) or of 5 and 6 bits (rounded to 8).
_INEXACT_LAYOUTS = (";16", ";16B", ";16L", ";16N", ";15", ";12")


@dataclass(frozen=True)
class Decoded:
    """One file, upright: an image of at most 8 bits a sample, or samples uint16 [H, W, channels] of 16 bits.

    `transparent`: samples of 16 bits of which some do not count as opaque.
    """

    image: Image | None
    samples: np.ndarray | None = None
    transparent: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        if self.samples is not None:
            return self.samples.shape[1], self.samples.shape[0]
        assert self.image is not None
        return self.image.size


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file that lies in an archive, and its name there, for messages."""

    name: str
    content: bytes


ImageFileLike = str | os.PathLike[str] | EncodedImage


def image_name(file: ImageFileLike) -> str:
    """What messages call the file."""
    return file.name if isinstance(file, EncodedImage) else os.fspath(file)


def _readable(file: ImageFileLike) -> Any:
    """What Pillow opens."""
    return io.BytesIO(file.content) if isinstance(file, EncodedImage) else file


def decode(path: ImageFileLike) -> Decoded:
    """The file at `path`, turned as viewers turn it. Colour profiles are not applied."""
    from PIL import Image, UnidentifiedImageError

    name = image_name(path)
    if not isinstance(path, EncodedImage):
        check_plain_file(path, "image file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower than Pillow's
            with Image.open(_readable(path), formats=FORMATS) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise InvalidInputError(
                        f"image file {name!r} is too large: {file.width:,}x{file.height:,} pixels, "
                        f"at most {MAX_PIXELS:,} are read"
                    )
                # A phone's JPEG may hold further pictures (a depth map, say) behind the one that is meant.
                if getattr(file, "is_animated", False) and file.format != "MPO":
                    raise InvalidInputError(
                        f"image file {name!r} is animated or has several pages; a single image is needed"
                    )
                return _samples(path, name, file)
    except UnidentifiedImageError as error:
        accepted = ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
        raise InvalidInputError(f"image file {name!r} is not a readable {accepted} file") from error
    except Image.DecompressionBombError as error:
        raise InvalidInputError(f"image file {name!r} is too large: {error}") from error
    except InvalidInputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError) as error:  # Pillow's "broken"
        raise InvalidInputError(f"image file {name!r} cannot be read: {error}") from error


def _samples(path: ImageFileLike, name: str, file: ImageFile) -> Decoded:
    from PIL import Image, ImageOps

    raw = _raw_mode(file)
    transparent = file.info.get("transparency")
    if raw.startswith("I;16") and (file.mode in DEEP_GREY_MODES or (file.mode == "I" and file.format == "PNG")):
        grey = np.asarray(_upright(file)).astype(np.uint16)[..., None]
        if _white_is_zero(file):
            grey = 65535 - grey
        return Decoded(None, grey, transparent is not None and bool((grey == transparent).any()))
    if file.mode in ("I", "F"):
        raise InvalidInputError(
            f"image file {name!r} has colour mode {file.mode}, whose range no format fixes; save it with 8 or 16 bits"
        )
    if not raw.endswith(_INEXACT_LAYOUTS) and file.mode not in DEEP_GREY_MODES:
        file.load()
        return Decoded(ImageOps.exif_transpose(file))
    if file.format != "PNG" or raw not in ("RGB;16B", "RGBA;16B"):
        raise InvalidInputError(
            f"image file {name!r} stores its samples in a form that cannot be read exactly ({file.format} {raw}); "
            "save it as PNG with 8 bits, or with 16 bits in grey or RGB"
        )
    # Pillow keeps the high bytes alone. Read as if it were little-endian, the same file yields the low ones.
    high = np.asarray(_upright(file)).astype(np.uint16)
    with Image.open(_readable(path), formats=("PNG",)) as again:
        codec, box, offset, _ = again.tile[0]
        again.tile = [(codec, box, offset, raw.replace("16B", "16L"))]  # type: ignore[list-item]
        samples = high * 256 + np.asarray(_upright(again))
    colour = samples[..., :3]
    if samples.shape[2] == 4:
        return Decoded(None, colour, bool((samples[..., 3] != 65535).any()))
    return Decoded(None, colour, transparent is not None and bool((colour == transparent).all(2).any()))


def _white_is_zero(file: ImageFile) -> bool:
    """Whether a TIFF file counts from white down; Pillow turns that round for 8 bits, not for 16."""
    return file.format == "TIFF" and file.tag_v2.get(262) == 0  # type: ignore[attr-defined]


def _upright(file: ImageFile) -> Image:
    from PIL import ImageOps

    file.load()
    return ImageOps.exif_transpose(file)


def _raw_mode(file: ImageFile) -> str:
    """How the file lays out its samples, as Pillow calls it: "RGB;16B" for colour of 16 bits."""
    if not file.tile:
        return ""
    arguments = file.tile[0][3]
    words = arguments if isinstance(arguments, tuple) else (arguments,)
    return next((word for word in words if isinstance(word, str)), "")
