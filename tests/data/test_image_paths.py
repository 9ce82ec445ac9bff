"""Folders of images: what is found below them, and which labels the names of folders give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acert_zoo.data.image_paths import ImagePath, folder_labels, image_paths
from acert_zoo.errors import InvalidInputError, UnknownNameError

CLASSES = (("cat",), ("sports car", "n0285"), ("dog",))


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_folders_stand_for_all_images_below_them_in_path_order(tmp_path: Path) -> None:
    tree(tmp_path, "b.png", "a.JPG", "c.webp", "notes.txt", ".hidden.png", ".git/x.png", "sub/2.png", "sub/deep/1.tiff")
    (tmp_path / "empty.png").mkdir()
    found = [p.path.relative_to(tmp_path).as_posix() for p in image_paths([tmp_path])]
    assert found == ["a.JPG", "b.png", "c.webp", "sub/2.png", "sub/deep/1.tiff"]
    assert [p.folders for p in image_paths([tmp_path / "sub"])] == [("sub",), ("deep", "sub")]
    assert image_paths([tmp_path / "notes.txt"]) == [ImagePath(tmp_path / "notes.txt")]


def test_what_is_no_image_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="holds no image file"):
        image_paths([tmp_path / "empty"])
    with pytest.raises(InvalidInputError, match=r"'.*missing\.png' does not exist"):
        image_paths([tmp_path / "missing.png"])
    with pytest.raises(InvalidInputError, match="cannot be read"):
        image_paths(["a\0b.png"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_pipes_are_refused_and_links_in_a_circle_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InvalidInputError, match="plain file"):
        image_paths([tmp_path / "pipe.png"])
    tree(tmp_path / "photos", "1.png")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert [p.path for p in image_paths([tmp_path / "link"])] == [tmp_path / "link" / "1.png"]


def test_folders_named_like_classes_give_labels(tmp_path: Path) -> None:
    tree(tmp_path, "Cat/1.png", "dog/images/2.png", "n0285/4.png", "sports_car/3.png")
    assert folder_labels(image_paths([tmp_path]), CLASSES, "pets") == [0, 2, 1, 1]


def test_a_folder_of_one_class_may_be_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "dog/1.png")
    monkeypatch.chdir(tmp_path / "dog")
    assert folder_labels(image_paths([tmp_path / "dog"]), CLASSES, "pets") == [2]
    assert folder_labels(image_paths(["."]), CLASSES, "pets") == [2]


def test_without_folders_of_classes_there_are_no_labels(tmp_path: Path) -> None:
    tree(tmp_path, "holiday/1.png", "2.png")
    assert folder_labels(image_paths([tmp_path]), CLASSES, "pets") is None
    assert folder_labels(image_paths([tmp_path / "2.png"]), CLASSES, "pets") is None


def test_folders_of_classes_beside_others_are_an_error_that_names_the_image(tmp_path: Path) -> None:
    tree(tmp_path, "dog/1.png", "cats/2.png")
    with pytest.raises(UnknownNameError, match=r"2\.png.*unknown class of pets 'cats'; did you mean cat"):
        folder_labels(image_paths([tmp_path]), CLASSES, "pets")
    with pytest.raises(InvalidInputError, match=r"2\.png.*--labels"):
        folder_labels(image_paths([tmp_path / "dog", tmp_path / "cats" / "2.png"]), CLASSES, "pets")
