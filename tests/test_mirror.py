"""Tests mirror modules: each has a test file at its path, or another one says in its docstring that it is tested there.

Such a docstring ends with a line "Also tested here: bounds/certifier.py, ...".
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
MODULES = sorted(p for top in ("acert_zoo", "training") for p in (ROOT / top).rglob("*.py") if p.name != "__init__.py")
NAMED = re.compile(r"[\w/]+\.py")


def path_in_tests(module: Path) -> str:
    """`bounds/ibp.py` of the package, `training/run/loop.py` of training."""
    return module.relative_to(ROOT).as_posix().removeprefix("acert_zoo/")


def named_in_docstrings() -> set[str]:
    docstrings = (ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) for p in TESTS.rglob("test_*.py"))
    return {name for text in docstrings if text for name in NAMED.findall(text.partition("Also tested here:")[2])}


@pytest.fixture(scope="module")
def elsewhere() -> set[str]:
    return named_in_docstrings()


def test_every_module_has_its_tests(elsewhere: set[str]) -> None:
    missing = []
    for module in MODULES:
        path = Path(path_in_tests(module))
        at_its_path = (TESTS / path).with_name(f"test_{path.name.removeprefix('_')}").is_file()
        if not at_its_path and path.as_posix() not in elsewhere:
            missing.append(path.as_posix())
    assert missing == []


def test_docstrings_name_modules_that_are_there(elsewhere: set[str]) -> None:
    assert elsewhere - {path_in_tests(module) for module in MODULES} == set()


def test_every_test_file_says_what_it_shows() -> None:
    silent = [
        p for p in TESTS.rglob("test_*.py") if ast.get_docstring(ast.parse(p.read_text(encoding="utf-8"))) is None
    ]
    assert silent == []
