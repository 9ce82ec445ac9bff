"""One small run of training/train.py in a process of its own, which several tests look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.training import run_train, write_dataset, write_recipe


@dataclass(frozen=True)
class FinishedRun:
    """Two epochs of four steps, a state saved after each step; `folder` has no test files beside its data."""

    recipe: Path
    folder: Path
    output: str
    data: list[str]  # the arguments that name its data

    @property
    def arguments(self) -> list[str]:
        """Of another new run that would end the same (without --run)."""
        return ["--recipe", str(self.recipe), "--kappa", "0.5", *self.data]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("command")
    data = ["--data-root", str(write_dataset(folder / "data")), "--save-minutes", "0"]
    run = FinishedRun(write_recipe(folder / "tiny.toml", epochs=2), folder / "whole", "", data)
    done = run_train(*run.arguments, "--run", run.folder)
    assert done.returncode == 0, done.stderr
    return FinishedRun(run.recipe, run.folder, done.stdout, data)
