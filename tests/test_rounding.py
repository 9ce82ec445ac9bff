"""The names of rounding levels and bound methods: their order, their texts, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.rounding import (
    CROWN_METHODS,
    PROVED_LEVELS,
    SELECTABLE_LEVELS,
    BoundMethod,
    RoundingLevel,
    proved_level,
    weakest,
)


def test_the_texts_are_those_of_files_and_of_the_command_line() -> None:
    assert [str(level) for level in RoundingLevel] == ["float32", "float64", "real-sound", "float32-deployed"]
    assert [str(method) for method in BoundMethod] == ["ibp", "crown-ibp", "crown", "alpha-crown", "best", "complete"]


def test_a_name_is_written_as_its_text() -> None:
    level = RoundingLevel.REAL_SOUND
    assert level == "real-sound"
    assert json.dumps({"rounding": level, level: 1}) == '{"rounding": "real-sound", "real-sound": 1}'
    assert f"{level} {level!r}" == "real-sound 'real-sound'"


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["real-sound"], "real-sound"),
        (["float32-deployed", "real-sound"], "real-sound"),  # not the order of the alphabet
        (["real-sound", "float64"], "float64"),
        (["float64", "float32", "float32-deployed"], "float32"),
    ],
)
def test_the_weakest_level(levels: list[str], expected: str) -> None:
    assert weakest(levels) == weakest(reversed(levels)) == expected


def test_the_weakest_level_of_none_or_of_an_unknown_one() -> None:
    with pytest.raises(ValueError, match="empty"):
        weakest([])
    with pytest.raises(ValueError, match="realsound"):
        weakest(["realsound"])


def test_what_is_proved() -> None:
    assert [level for level in RoundingLevel if level.proved] == list(PROVED_LEVELS)
    assert PROVED_LEVELS == ("real-sound", "float32-deployed")
    assert proved_level("float32-deployed") is RoundingLevel.FLOAT32_DEPLOYED
    for name in ("float32", "float64"):
        with pytest.raises(InvalidInputError, match="proves nothing; proved levels: real-sound, float32-deployed"):
            proved_level(name)


def test_names_are_looked_up_among_those_that_are_accepted() -> None:
    assert RoundingLevel.among("real-sound", SELECTABLE_LEVELS) is RoundingLevel.REAL_SOUND
    assert BoundMethod.among("alpha-crown") is BoundMethod.ALPHA_CROWN
    with pytest.raises(UnknownNameError, match="rounding level 'float64'"):
        RoundingLevel.among("float64", SELECTABLE_LEVELS)
    with pytest.raises(UnknownNameError, match="method 'crwn'; did you mean crown"):
        BoundMethod.among("crwn")
    with pytest.raises(UnknownNameError, match="'ibp'"):
        BoundMethod.among("ibp", CROWN_METHODS)


def test_the_names_need_no_torch() -> None:
    code = "import sys, acert_zoo.rounding; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
