"""Putting one entry into the zoo: all of its files appear together, or none does.

Weights, evaluation, record, cards, tables and figures are made in a copy of the zoo's small files beside them; only
what was made whole is moved into place, the registry last, and an error on the way puts everything back.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acert_zoo._files import locked
from acert_zoo.data.registration import dataset_info, is_own
from acert_zoo.zoo import registry
from training.report import cards
from training.results.evaluation import Evaluation, store_evaluation
from training.results.zoo_folder import ZooFolder, write_atomic


def add_entry(
    zoo: ZooFolder, record: Mapping[str, Any], evaluation: Evaluation, content: bytes | None = None
) -> registry.ModelInfo:
    """Adds the record (without metrics) and all that belongs to it; a record of the same name and version is replaced.

    Args:
        content: the entry's file, weights or cascade; None where it is there already.

    Raises:
        AcertZooError, OSError: the zoo is then as it was.
    """
    with all_or_nothing(zoo) as staged:
        if content is not None:
            write_atomic(staged.package / str(record["file"]), content)
        dataset = str(record["dataset"])
        if is_own(dataset):
            registration = dataset_info(dataset)
            write_atomic(staged.registrations / f"{dataset}.toml", registration.without_files().to_toml())
        store_evaluation(staged, evaluation)
        info = registry.add_record(staged.registry, {**record, "metrics": evaluation.metrics()})
        cards.render_all(staged)
    return info


@contextmanager
def all_or_nothing(zoo: ZooFolder) -> Iterator[ZooFolder]:
    """A copy of the zoo's small files to change; what is changed there is moved into `zoo` when the block ends well."""
    with locked(zoo.package), tempfile.TemporaryDirectory(prefix=".staged-", dir=zoo.root) as folder:
        staged = ZooFolder(Path(folder) / "zoo")
        for path in _small_files(zoo):
            target = staged.root / path.relative_to(zoo.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        staged.package.mkdir(parents=True, exist_ok=True)
        yield staged
        _move(staged, zoo, Path(folder) / "before")


def _small_files(zoo: ZooFolder) -> list[Path]:
    """What cards are rendered from and into: everything but weights."""
    folders = (zoo.registrations, zoo.evaluation("", 0).parent, zoo.cards, zoo.figures)
    inside = [path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()]
    single = [zoo.registry, zoo.root / "README.md", *zoo.checkpoint("", 0).parent.glob("*.json")]
    return inside + [path for path in single if path.is_file()]


def _move(staged: ZooFolder, zoo: ZooFolder, before: Path) -> None:
    changed = [p for p in staged.root.rglob("*") if p.is_file() and not _same(p, zoo.root / p.relative_to(staged.root))]
    changed.sort(key=lambda path: path == staged.registry)  # last: nothing names an entry whose files are not there
    moved: list[tuple[Path, Path | None]] = []
    try:
        for path in changed:
            target = zoo.root / path.relative_to(staged.root)
            old = before / path.relative_to(staged.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_file():
                old.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(target, old)
            os.replace(path, target)
            moved.append((target, old if old.is_file() else None))
    except BaseException:
        for target, saved in reversed(moved):
            if saved is None:
                target.unlink(missing_ok=True)
            else:
                os.replace(saved, target)
        raise


def _same(path: Path, other: Path) -> bool:
    return other.is_file() and path.stat().st_size == other.stat().st_size and path.read_bytes() == other.read_bytes()
