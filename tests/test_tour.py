"""The notebook docs/tour.ipynb runs from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def cells() -> list[dict[str, Any]]:
    return [c for c in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs() -> None:
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in cells())


def test_every_cell_runs() -> None:
    """In this process, cell by cell: what a notebook kernel would do, without one."""
    matplotlib = pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(), 1):
        exec(compile(cell["source"], f"tour.ipynb, cell {number}", "exec"), names)
    assert len(names["result"]) == 20
    assert names["path"].is_file()
    figure = names["ax"].figure
    assert len(names["ax"].get_lines()) == 2
    matplotlib.pyplot.close(figure)
