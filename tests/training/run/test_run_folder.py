"""A run's folder: torn lines of its log are dropped, and a run is not overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.training import tiny_recipe, write_dataset
from training.run.run_folder import RunError, RunFolder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


def test_duplicated_and_torn_lines_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", tiny_recipe())
    for epoch, loss in ((1, 1.0), (2, 2.0), (2, 2.5), (3, 3.0)):
        folder.log({"epoch": epoch, "loss": loss})
    with open(folder.path / "log.jsonl", "a") as file:
        file.write('{"epoch": 4, "lo')
    folder.trim_log(2)
    assert folder.rows() == [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 2.0}]


def test_a_run_is_not_overwritten(root: str, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    folder = RunFolder.create(tmp_path / "run", recipe)
    folder.save({"step": 0})
    with pytest.raises(RunError, match="--resume"):
        RunFolder.create(tmp_path / "run", recipe)
    with pytest.raises(RunError, match="not the folder of a training run"):
        RunFolder(tmp_path).recipe()
