"""Numbered images from every kind of source: the same pixels, the right labels, ranges, names, and what is refused.

Also tested here: data/array_source.py, data/folder_source.py, data/tar_source.py, data/pixel_source.py.
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acert_zoo.data.datasets import to_pixels
from acert_zoo.data.open_source import open_source
from acert_zoo.data.pixel_source import ImagesByName, PixelSource
from acert_zoo.errors import InvalidInputError, UnknownNameError
from tests.support.cli import make_data

SHAPE = (3, 8, 8)
ARRAYS = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 2, 0, 1, 3])
PIXELS = to_pixels(ARRAYS)


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def shards(folder: Path) -> Path:
    """Four and two samples in two tar files; one member that nobody asked for."""
    folder.mkdir()
    for k, rows in enumerate((range(4), range(4, 6))):
        members = [("a/__key.json", b"{}")]
        for i in rows:
            members += [(f"a/{i:03d}.png", png(ARRAYS[i])), (f"a/{i:03d}.cls", b"%d\n" % LABELS[i])]
        tar(folder / f"train-{k}.tar", members)
    return folder


def check(source: PixelSource, ids: list[str]) -> None:
    """All pixels, a range across any border, names and back, and the same after pickling."""
    for opened in (source, pickle.loads(pickle.dumps(source))):
        assert len(opened) == 6
        pixels, labels = opened.read(range(6))
        assert torch.equal(pixels, PIXELS)
        assert labels is not None
        assert labels.tolist() == LABELS.tolist()
        pixels, labels = opened.read(range(3, 5))
        assert torch.equal(pixels, PIXELS[3:5])
        assert opened.ids(range(6)) == ids
        assert opened.find(ids[4]) == 4
        assert opened.find("nobody") is None
    assert torch.equal(ImagesByName(source)[ids[5]], PIXELS[5])
    assert "nobody" not in ImagesByName(source)


def test_arrays_of_bytes_and_of_pixels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ARRAYS)
    np.save(tmp_path / "y.npy", LABELS)
    np.save(tmp_path / "p.npy", PIXELS.contiguous().numpy())
    for name in ("x.npy", "p.npy"):
        source = open_source(tmp_path / name, SHAPE, labels=tmp_path / "y.npy")
        check(source, ["0", "1", "2", "3", "4", "5"])
    assert open_source(tmp_path / "x.npy", SHAPE).read(range(2))[1] is None


def test_tar_files(tmp_path: Path) -> None:
    folder = shards(tmp_path / "tars")
    ids = [f"train-{int(i > 3)}.tar/a/{i:03d}" for i in range(6)]
    check(open_source(folder, SHAPE), ids)
    check(open_source([folder / "train-0.tar", folder / "train-1.tar"], SHAPE), ids)


def test_folders_are_labelled_by_the_classes_of_the_models_data_set(tmp_path: Path) -> None:
    for i, name in enumerate(("cat/1.png", "dog/a/2.png")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(png(ARRAYS[i]))
    source = open_source(tmp_path, SHAPE, classes_of="cifar10")
    pixels, labels = source.read(range(2))
    assert torch.equal(pixels, PIXELS[:2])
    assert labels is not None
    assert labels.tolist() == [3, 5]
    assert source.ids(range(2)) == [str(tmp_path / "cat/1.png"), str(tmp_path / "dog/a/2.png")]
    assert source.find(str(tmp_path / "dog/a/2.png")) == 1
    assert not open_source(tmp_path, SHAPE).labelled


def test_a_registered_data_set_by_name(tmp_path: Path) -> None:
    images, _ = make_data(tmp_path, 5)
    source = open_source("cifar10", None, data_root=tmp_path)
    assert torch.equal(source.read(range(2, 5))[0], to_pixels(images[2:5]))
    assert (source.dataset, source.split, len(source)) == ("cifar10", "test", 5)
    assert len(open_source("mnist", None, split="samples")) == 100


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b""), ("1.jpg", b"")], "has 2 images"),
        ([("1.cls", b"3")], "has 0 images"),
        ([("1.png", b""), ("2.png", b""), ("1.cls", b"3")], "do not stand together"),
        ([("1.png", b""), ("1.png", b"")], "two members '.png'"),
        ([("1.png", b""), ("1.cls", b"3"), ("2.png", b"")], "all have a .cls or none"),
        ([("1.png", b""), ("1.cls", b"3" * 99)], "has 99 bytes"),
    ],
)
def test_tar_files_that_are_no_webdataset_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    path = tar(tmp_path / "x.tar", members)
    with pytest.raises(InvalidInputError, match=message):
        open_source(path, SHAPE)


def test_labels_and_images_that_cannot_be_used_are_named_when_read(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("1.png", png(ARRAYS[0])), ("1.cls", b"cat"), ("2.png", b"torn"), ("2.cls", b"1")])
    source = open_source(path, SHAPE)
    with pytest.raises(InvalidInputError, match=r"label 'cat' of 'x\.tar/1'"):
        source.read(range(1))
    with pytest.raises(InvalidInputError, match=r"image file 'x\.tar/2\.png' is not a readable"):
        source.read(range(1, 2))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("name", ["x.npy", "x.tar", "folder/x.tar"])
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidInputError, match="not a plain file"):
        open_source((tmp_path / name) if "/" not in name else tmp_path / "folder", SHAPE)
    np.save(tmp_path / "i.npy", ARRAYS)
    if name == "x.npy":
        with pytest.raises(InvalidInputError, match="not a plain file"):
            open_source(tmp_path / "i.npy", SHAPE, labels=tmp_path / name)


def test_what_is_refused_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ARRAYS.transpose(0, 3, 1, 2).copy())
    with pytest.raises(InvalidInputError, match=r"uint8 \(6, 3, 8, 8\); the model takes uint8 \(N, 8, 8, 3\)"):
        open_source(tmp_path / "x.npy", SHAPE)
    np.save(tmp_path / "x.npy", ARRAYS)
    np.save(tmp_path / "y.npy", LABELS[:3])
    with pytest.raises(InvalidInputError, match="expected 6 integers"):
        open_source(tmp_path / "x.npy", SHAPE, labels=tmp_path / "y.npy")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match=r"cannot be read as a \.npy array"):
        open_source(tmp_path / "o.npy", SHAPE)
    (tmp_path / "x.tar").write_bytes(b"\x1f\x8b" + b"0" * 600)
    with pytest.raises(InvalidInputError, match="plain tar file"):
        open_source(tmp_path / "x.tar", SHAPE)
    with pytest.raises(UnknownNameError, match=r"did you mean cifar10.*Nor is there a file"):
        open_source("cifar", SHAPE)
    with pytest.raises(InvalidInputError, match="split 'val' is for registered"):
        open_source(tmp_path / "x.npy", SHAPE, split="val")
    with pytest.raises(InvalidInputError, match="input_shape"):
        open_source(tmp_path / "x.npy", None)
    with pytest.raises(InvalidInputError, match="named by a string"):
        open_source(3, SHAPE)
