"""Errors: near names are suggested, and each is also the built-in error that code elsewhere expects."""

from __future__ import annotations

import pytest

from acert_zoo import errors
from acert_zoo.errors import AcertZooError, UnknownNameError


def test_near_names_are_suggested_whatever_their_case() -> None:
    known = ["cifar10", "mnist", "tinyimagenet"]
    assert "did you mean cifar10?" in str(UnknownNameError.near("data set", "CIFAR-10", known))
    far = str(UnknownNameError.near("data set", "xyz", known))
    assert far == "unknown data set 'xyz'; known: cifar10, mnist, tinyimagenet."


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("InvalidInputError", ValueError),
        ("UnknownNameError", ValueError),
        ("UnsupportedLayerError", NotImplementedError),
        ("UnsoundSettingError", RuntimeError),
        ("CertificateFileError", ValueError),
        ("MissingDependencyError", ImportError),
        ("DatasetNotFoundError", FileNotFoundError),
    ],
)
def test_each_error_is_the_built_in_one_too(name: str, builtin: type[Exception]) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, AcertZooError)
    assert issubclass(kind, builtin)
