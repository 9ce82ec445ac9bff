"""Registering a data set: one TOML file says all; what it gets wrong is named.

Also tested here: data/dataset.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from acert_zoo.data import registration
from acert_zoo.data.dataset import DatasetInfo
from acert_zoo.data.registration import dataset_info, dataset_names, read_registration, register_dataset
from acert_zoo.errors import InvalidInputError, UnknownNameError

FLOWERS = """
name = "flowers"
input_shape = [3, 8, 8]
classes = ["daisy", "ox-eye daisy"]
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
eps_max = "8/255"
"""


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registration, "_own", {})
    monkeypatch.setenv("ACERT_ZOO_DATA", str(tmp_path))


def write(folder: Path, text: str = FLOWERS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(text, encoding="utf-8")
    return folder / "dataset.toml"


def test_a_registration_says_all_and_the_rest_has_defaults(tmp_path: Path) -> None:
    info = read_registration(write(tmp_path / "here"))
    assert (info.input_shape, info.num_classes, info.classes[1]) == ((3, 8, 8), 2, "ox-eye daisy")
    assert (info.eps_max_value, info.reported_eps, info.validation) == (8 / 255, ("8/255",), 0.1)
    assert info.files == tmp_path / "here"
    assert info.display_name == "flowers"


def test_it_may_be_named_or_lie_beside_the_data(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'flowers'"):
        dataset_info("flowers")
    path = write(tmp_path / "flowers")
    assert dataset_info("flowers").files == tmp_path / "flowers"
    assert dataset_info("flowers", tmp_path).classes[0] == "daisy"
    with pytest.raises(UnknownNameError):
        dataset_info("flowers", tmp_path / "elsewhere")
    register_dataset(path)
    assert dataset_info("flowers", tmp_path / "elsewhere").classes[0] == "daisy"
    assert "flowers" in dataset_names()


def test_a_name_stands_for_one_data_set(tmp_path: Path) -> None:
    register_dataset(write(tmp_path / "a"))
    register_dataset(write(tmp_path / "b"))  # the same facts, other files
    with pytest.raises(InvalidInputError, match="another data set is registered as 'flowers'"):
        register_dataset(write(tmp_path / "c", FLOWERS.replace("0.25", "0.2")))
    with pytest.raises(InvalidInputError, match="another data set is registered as 'mnist'"):
        register_dataset(write(tmp_path / "d", FLOWERS.replace("flowers", "mnist")))
    write(tmp_path / "tulips")
    with pytest.raises(InvalidInputError, match="registers 'flowers', not 'tulips'"):
        dataset_info("tulips")


def test_a_registration_is_written_and_read_back(tmp_path: Path) -> None:
    info = replace(
        read_registration(write(tmp_path)), title='The "flowers" €', license="CC BY 4.0\nor later", validation=300
    )
    assert read_registration(write(tmp_path / "copy", info.to_toml())) == info


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "flowers"', 'name = "../x"', r"name is '\.\./x'; expected lower-case"),
        ('name = "flowers"', "", "name missing"),
        ("[3, 8, 8]", "[8, 8, 3]", r"input_shape is .*expected \[1 or 3, height, width\]"),
        ("[3, 8, 8]", "3", "input_shape is 3"),
        ('["daisy", "ox-eye daisy"]', '["Ox eye daisy", "ox-eye daisy"]', "at least two distinct names"),
        ("[0.5, 0.5, 0.5]", "[0.5]", "mean is .*expected a list of 3 numbers"),
        ("[0.25, 0.25, 0.25]", "[0.25, 0, 0.25]", "std is .*above 0"),
        ("[0.25, 0.25, 0.25]", "[0.25, nan, 0.25]", "std is"),
        ('"8/255"', '"8"', "eps_max is '8'"),
        ('"8/255"', "0.1", "eps_max is 0.1"),
        ("eps_max", "epsmax", "unknown key 'epsmax'; did you mean eps_max"),
        ("name =", "validation = 0\nname =", "validation is 0; expected a number of images, or a share"),
        ("name =", 'folders = ["a"]\nname =', "folders is .*a list of 2 distinct names"),
        ("name =", "files = 3\nname =", "files is 3"),
        ("name =", "resize = 1\nname =", "resize is 1; expected true or false"),
        ("name =", "name", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises((InvalidInputError, UnknownNameError), match=rf"dataset\.toml': .*{message}|{message}"):
        read_registration(write(tmp_path, FLOWERS.replace(old, new, 1)))


@pytest.mark.parametrize(("validation", "n", "held_out"), [(0.1, 50, 5), (0.25, 10, 2), (7, 10, 7), (5000, 300, 300)])
def test_validation_is_a_number_or_a_share(validation: float, n: int, held_out: int) -> None:
    assert replace(dataset_info("mnist"), validation=validation).validation_size(n) == held_out


def test_a_share_that_holds_out_no_image_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="none of 4 training images"):
        replace(dataset_info("mnist"), validation=0.1).validation_size(4)


def test_the_zoos_own_registrations() -> None:
    assert [name for name in dataset_names() if name != "flowers"] == ["cifar10", "mnist", "tinyimagenet"]
    for name in dataset_names():
        info = dataset_info(name)
        assert isinstance(info, DatasetInfo)
        assert (info.files, info.validation) == (None, 5000)
        assert all((info.title, info.about, info.source, info.license, info.bibtex, info.hub_id))
    assert dataset_info("tinyimagenet").class_folders[0] == ("n01443537", "goldfish")
