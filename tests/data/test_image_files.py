"""Image files as pixels: exact conversions pass, inexact ones are refused or asked for, broken files are errors."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from acert_zoo.data.image_files import load_images, read_images
from acert_zoo.data.image_paths import image_paths
from acert_zoo.errors import InvalidInputError

RGB_2X2 = np.array([[[0, 1, 2], [3, 4, 5]], [[128, 254, 255], [51, 102, 204]]], dtype=np.uint8)


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_a_png_becomes_its_bytes_over_255_channels_first(tmp_path: Path) -> None:
    images = load_images([save(tmp_path / "a.png", RGB_2X2)], (3, 2, 2))
    assert images.dtype == torch.float32
    assert images.shape == (1, 3, 2, 2)
    for c in range(3):
        for i in range(2):
            for j in range(2):
                assert images[0, c, i, j].item() == np.float32(RGB_2X2[i, j, c]) / np.float32(255)


def test_several_files_keep_their_order_and_none_is_an_empty_batch(tmp_path: Path) -> None:
    first = save(tmp_path / "z.png", RGB_2X2)
    second = save(tmp_path / "a.png", 255 - RGB_2X2)
    images = load_images([first, second], (3, 2, 2))
    assert images[0, 0, 0, 0] == 0
    assert images[1, 0, 0, 0] == 1
    assert load_images([], (3, 2, 2)).shape == (0, 3, 2, 2)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_conversions_that_change_no_pixel_are_made_silently(tmp_path: Path, mode: str) -> None:
    grey = np.repeat(np.array([[[0], [51]], [[204], [255]]], dtype=np.uint8), 3, axis=2)
    path = save(tmp_path / "a.png", grey, mode)
    colour = load_images([path], (3, 2, 2))
    single = load_images([path], (1, 2, 2))
    assert torch.equal(colour[:, :1], single)
    assert torch.equal((single * 255).round().flatten(), torch.tensor([0.0, 51.0, 204.0, 255.0]))


def test_jpeg_pixels_are_those_that_pillow_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", np.full((8, 8, 3), 100, dtype=np.uint8), quality=95)
    with Image.open(path) as file:
        expected = np.asarray(file)
    assert torch.equal(
        (load_images([path], (3, 8, 8))[0] * 255).round().permute(1, 2, 0).byte(), torch.tensor(expected)
    )


def test_a_wrong_size_names_the_file_its_size_and_the_right_one_and_resize_scales_it(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", np.full((4, 6, 3), 51, dtype=np.uint8))
    with pytest.raises(InvalidInputError, match=r"wide\.png.*6x4.*32x16.*--resize"):
        load_images([path], (3, 16, 32))
    scaled = load_images([path], (3, 16, 32), resize=True)
    assert scaled.shape == (1, 3, 16, 32)
    assert torch.all(scaled == torch.tensor(51.0) / 255)


def test_colour_for_a_greyscale_model_is_refused_unless_converted(tmp_path: Path) -> None:
    path = save(tmp_path / "c.png", RGB_2X2)
    with pytest.raises(InvalidInputError, match="colour"):
        load_images([path], (1, 2, 2))
    expected = torch.tensor(np.array(Image.fromarray(RGB_2X2).convert("L"))) / 255
    assert torch.equal(load_images([path], (1, 2, 2), resize=True)[0, 0], expected)


def test_transparency_is_refused_unless_converted(tmp_path: Path) -> None:
    rgba = np.dstack([RGB_2X2, np.array([[255, 254], [255, 255]], dtype=np.uint8)])
    path = save(tmp_path / "t.png", rgba)
    with pytest.raises(InvalidInputError, match="transparent"):
        load_images([path], (3, 2, 2))
    assert load_images([path], (3, 2, 2), resize=True)[0, 2, 1, 0] == 1


@pytest.mark.parametrize("name", ["cmyk.jpg", "cmyk.tif"])
def test_cmyk_is_refused_by_name_and_resize_converts_it(tmp_path: Path, name: str) -> None:
    flat = np.full((8, 8, 3), (200, 100, 0), dtype=np.uint8)
    path = save(tmp_path / name, flat, "CMYK")
    with pytest.raises(InvalidInputError, match="colour mode CMYK"):
        load_images([path], (3, 8, 8))
    converted = load_images([path], (3, 8, 8), resize=True)[0, :, 4, 4] * 255
    assert torch.allclose(converted, torch.tensor([200.0, 100.0, 0.0]), atol=4)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_a_fixed_range_are_refused(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "raw.tif", np.zeros((2, 2), dtype=np.int32 if mode == "I" else np.float32))
    for resize in (False, True):
        with pytest.raises(InvalidInputError, match=f"colour mode {mode}, whose range no format fixes"):
            load_images([path], (1, 2, 2), resize=resize)


@pytest.mark.parametrize("suffix", ["webp", "bmp", "tif", "gif", "PNG"])
def test_other_formats_hold_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", RGB_2X2, **options)
    expected = load_images([save(tmp_path / "b.png", RGB_2X2)], (3, 2, 2))
    assert torch.equal(load_images([path], (3, 2, 2)), expected)
    assert [found.path for found in image_paths([tmp_path])] == sorted([path, tmp_path / "b.png"])


def test_a_photo_is_taken_as_viewers_turn_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: turned by 180 degrees
    path = save(tmp_path / "turned.png", RGB_2X2, exif=exif)
    upright = load_images([save(tmp_path / "upright.png", RGB_2X2)], (3, 2, 2))
    assert torch.equal(load_images([path], (3, 2, 2)), upright.flip(2, 3))


def png_file(width: int, height: int, bits: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG file put together by hand; `rows` are its scan lines, each behind its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_claiming(width: int, height: int) -> bytes:
    return png_file(width, height, 8, 2, b"\0" * 10)


def deep_png(path: Path, samples: np.ndarray) -> Path:
    """Samples uint16 [H, W, C] as a PNG of 16 bits: grey, grey and alpha, RGB or RGBA."""
    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    path.write_bytes(png_file(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows))
    return path


DEEP = np.array([[[0, 1, 255], [256, 257, 32767]], [[32768, 65279, 65280], [65534, 65535, 40000]]], dtype=np.uint16)


def test_sixteen_bits_become_their_number_over_65535(tmp_path: Path) -> None:
    expected = torch.tensor(np.array([[float(np.float32(k / 65535)) for k in row] for row in DEEP.reshape(4, 3)]))
    colour = load_images([deep_png(tmp_path / "colour.png", DEEP)], (3, 2, 2))
    assert torch.equal(colour[0].permute(1, 2, 0).reshape(4, 3).double(), expected)
    opaque = np.concatenate([DEEP, np.full((2, 2, 1), 65535, dtype=np.uint16)], axis=2)
    assert torch.equal(load_images([deep_png(tmp_path / "opaque.png", opaque)], (3, 2, 2)), colour)
    grey = deep_png(tmp_path / "grey.png", DEEP[..., 1:2])
    assert torch.equal(load_images([grey], (1, 2, 2))[0], colour[0, 1:2])
    assert torch.equal(load_images([grey], (3, 2, 2))[0], colour[0, 1:2].expand(3, 2, 2))
    tiff = save(tmp_path / "grey.tif", DEEP[..., 1])
    assert torch.equal(load_images([tiff], (1, 2, 2))[0], colour[0, 1:2])


def test_a_tiff_that_counts_from_white_is_turned_round(tmp_path: Path) -> None:
    path = save(tmp_path / "grey.tif", DEEP[..., 1])
    upright = load_images([path], (1, 2, 2))
    content = path.read_bytes()
    entry = struct.pack("<HHI", 262, 3, 1)  # photometric interpretation, one short number: 1 is "black is zero"
    assert content.count(entry + b"\1\0") == 1
    path.write_bytes(content.replace(entry + b"\1\0", entry + b"\0\0"))
    assert torch.allclose(load_images([path], (1, 2, 2)), 1 - upright, atol=1e-7)


def test_a_bitmap_of_five_bits_a_sample_is_refused(tmp_path: Path) -> None:
    rows = struct.pack("<4H", 0x7FFF, 0, 0x1234, 0)
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, len(rows), 0, 0, 0, 0)
    (tmp_path / "five.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + header + rows)
    with pytest.raises(InvalidInputError, match="cannot be read exactly"):
        load_images([tmp_path / "five.bmp"], (3, 2, 2), resize=True)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_a_ramp_of_sixteen_bits_stays_a_ramp_when_scaled(tmp_path: Path, channels: int, size: int) -> None:
    ramp = np.tile(np.linspace(0, 65535, 28).round().astype(np.uint16), (28, 1))
    scaled = load_images([save(tmp_path / "ramp.png", ramp)], (channels, size, size), resize=True)
    wide = np.linspace(0, 1, 28)
    centres = (np.arange(size) + 0.5) * 28 / size - 0.5
    expected = np.interp(centres, np.arange(28), wide)
    assert np.abs(scaled[0, :, size // 2].numpy() - expected).max() < 1e-4


def test_sixteen_bits_are_converted_by_the_same_rules_as_eight(tmp_path: Path) -> None:
    path = deep_png(tmp_path / "colour.png", DEEP)
    with pytest.raises(InvalidInputError, match="in colour"):
        load_images([path], (1, 2, 2))
    grey = load_images([path], (1, 2, 2), resize=True)[0, 0, 1, 1].item()
    assert grey == pytest.approx((0.299 * 65534 + 0.587 * 65535 + 0.114 * 40000) / 65535, rel=1e-6)
    clear = np.concatenate([DEEP, np.full((2, 2, 1), 65534, dtype=np.uint16)], axis=2)
    with pytest.raises(InvalidInputError, match="partly transparent"):
        load_images([deep_png(tmp_path / "clear.png", clear)], (3, 2, 2))
    with pytest.raises(InvalidInputError, match="form that cannot be read exactly"):
        load_images([deep_png(tmp_path / "grey_alpha.png", DEEP[..., :2])], (3, 2, 2), resize=True)


def test_sixteen_bits_are_turned_as_viewers_turn_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    wide = np.array([[0, 30000, 65535]], dtype=np.uint16)
    path = save(tmp_path / "turned.png", wide, exif=exif)
    assert torch.equal(load_images([path], (1, 3, 1))[0, 0, :, 0], torch.tensor([0.0, 30000 / 65535, 1.0]))


def png_bytes() -> bytes:
    out = io.BytesIO()
    Image.fromarray(RGB_2X2).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable PNG, JPEG"),
        (b"hello", "not a readable PNG, JPEG"),
        (b"BM" + b"\0" * 100, ""),
        (png_bytes()[:-30], "cannot be read"),
        (png_claiming(100_000, 100_000), "too large"),
        (png_claiming(10_000, 8_000), r"too large: 10,000x8,000 pixels, at most 33,554,432"),
    ],
    ids=["empty", "text", "bmp", "truncated", "bomb", "large"],
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=rf"broken\.png.*{message}"):
        load_images([path], (3, 2, 2))


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB_2X2), Image.fromarray(255 - RGB_2X2)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    for suffix in ("gif", "webp", "tif"):
        frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    for path in tmp_path.iterdir():
        with pytest.raises(InvalidInputError, match="animated"):
            load_images([path], (3, 2, 2), resize=True)


def test_a_model_with_two_channels_takes_no_image_files() -> None:
    with pytest.raises(InvalidInputError, match="takes 2"):
        load_images([], (2, 4, 4))


def test_several_bad_files_are_all_named_or_set_aside(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", RGB_2X2)
    wide = save(tmp_path / "wide.png", np.zeros((2, 4, 3), dtype=np.uint8))
    torn = tmp_path / "torn.png"
    torn.write_bytes(png_bytes()[:-30])
    with pytest.raises(InvalidInputError, match=r"(?s)2 of 3 image files.*torn\.png.*wide\.png"):
        load_images([torn, good, wide], (3, 2, 2))
    batch = read_images([torn, good, wide], (3, 2, 2), resize=False)
    assert batch.read == [1]
    assert list(batch.unreadable) == [0, 2]
    assert torch.equal(batch.pixels, load_images([good], (3, 2, 2)))
    assert read_images([good, wide], (3, 2, 2), resize=True).stretched == 1


def test_the_further_pictures_in_a_phones_jpeg_do_not_count(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")]
    frames[0].save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=frames[1:])
    assert load_images([tmp_path / "photo.jpg"], (3, 8, 8)).min() == 1


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_altered_files_give_pixels_in_range_or_a_typed_error(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(png_bytes())
    for position, mask in flips:
        content[position % len(content)] ^= mask
    path = tmp_path / "altered.png"
    path.write_bytes(bytes(content))
    try:
        images = load_images([path], (3, 2, 2))
    except InvalidInputError:
        return
    assert images.min() >= 0
    assert images.max() <= 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidInputError, match="plain file"):
        load_images([tmp_path / "pipe.png"], (3, 2, 2))
