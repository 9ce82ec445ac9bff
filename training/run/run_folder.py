"""The folder of one run: recipe.json, environment.json, log.jsonl (one line an epoch) and last.pt, the training state.

Every file is replaced whole or not at all. The log line of an epoch is written before the state that ends the epoch, so
a killed run may have lines of epochs that its state has not reached: `trim_log` drops them on resume.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acert_zoo._files import read_plain, read_text, write_atomically
from acert_zoo.data.registration import FILE_NAME, dataset_info, is_own, read_registration, register_dataset
from acert_zoo.errors import InvalidInputError
from training.compute import distributed
from training.compute.environment import environment
from training.recipes.recipe import Recipe


class RunError(InvalidInputError):
    """A run cannot begin, go on or be saved; the message says what to do."""


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunFolder:
        """A new run's folder. RunError where the folder holds a run already."""
        if (path / "last.pt").exists() or (path / "log.jsonl").exists():
            raise RunError(f"{path} holds a run already: continue it with --resume {path}, or name another folder")
        folder = cls(path)
        if distributed.rank() == 0:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"the run's folder {path} cannot be made: {error.strerror or error}") from error
            folder._write("recipe.json", json.dumps(recipe.to_dict(), indent=1) + "\n")
            if is_own(recipe.dataset):
                folder._write(FILE_NAME, dataset_info(recipe.dataset).to_toml())
        return folder

    def recipe(self) -> Recipe:
        self.register_dataset()
        try:
            return Recipe.from_dict(json.loads(read_text(self.path / "recipe.json")))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"{self.path} is not the folder of a training run: it has no recipe.json") from None

    def register_dataset(self) -> None:
        """Makes a data set of the user's own known, as it was when the run began, unless a command names it anew."""
        if (self.path / FILE_NAME).is_file() and not is_own(read_registration(self.path / FILE_NAME).name):
            register_dataset(self.path / FILE_NAME)

    def write_environment(self, device: torch.device) -> None:
        """What the result may depend on beside the recipe: versions, git commit, threads, processes, device."""
        if distributed.rank() == 0:
            self._write("environment.json", json.dumps(environment(device), indent=1) + "\n")

    def save(self, state: dict[str, Any], name: str = "last.pt") -> None:
        """Writes the state, atomically. RunError where it cannot be written; the file is then as it was."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write(name, buffer.getvalue())

    def load(self, name: str = "last.pt") -> dict[str, Any] | None:
        """The saved state, on the CPU; None where nothing was saved yet."""
        path = self.path / name
        if not path.exists():
            return None
        try:
            return torch.load(io.BytesIO(read_plain(path)), map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError) as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def log(self, row: dict[str, Any]) -> None:
        """Appends one epoch's line."""
        try:
            with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._cannot_write("log.jsonl", error) from error

    def rows(self) -> list[dict[str, Any]]:
        """The log's complete lines."""
        path = self.path / "log.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # torn by a kill in the middle of a write
                break
        return rows

    def trim_log(self, epochs: int) -> None:
        """Keeps the first line of each of the epochs 1..`epochs`, which the saved state has finished."""
        first: dict[int, dict[str, Any]] = {}
        for row in self.rows():
            if row["epoch"] <= epochs:
                first.setdefault(row["epoch"], row)
        self._write("log.jsonl", "".join(json.dumps(first[e]) + "\n" for e in sorted(first)))

    def _write(self, name: str, content: bytes | str) -> None:
        try:
            for stale in self.path.glob(f".{name}.*.part"):  # left by a kill in the middle of an earlier write
                stale.unlink(missing_ok=True)
            write_atomically(self.path / name, content if isinstance(content, bytes) else content.encode())
        except OSError as error:
            raise self._cannot_write(name, error) from error

    def _cannot_write(self, name: str, error: OSError) -> RunError:
        return RunError(
            f"{self.path / name} cannot be written ({error.strerror or error}); the last good state is kept. Make room "
            f"and continue with --resume {self.path}"
        )
