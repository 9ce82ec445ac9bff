"""Entries of the zoo appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.zoo import empty_zoo, snapshot
from training.report import zoo_entry
from training.report.zoo_entry import all_or_nothing
from training.results.zoo_folder import ZooFolder, write_atomic


@pytest.fixture
def zoo(tmp_path: Path) -> ZooFolder:
    zoo = empty_zoo(tmp_path / "zoo")
    write_atomic(zoo.cards / "README.md", "old index")
    write_atomic(zoo.checkpoint("big", 1), b"weights")
    return zoo


def change(staged: ZooFolder) -> None:
    write_atomic(staged.registry, "new registry")
    write_atomic(staged.cards / "README.md", "new index")
    write_atomic(staged.cards / "figures" / "a.svg", "new figure")


def test_what_was_changed_in_the_copy_appears_and_nothing_else(zoo: ZooFolder) -> None:
    before = snapshot(zoo.root)
    with all_or_nothing(zoo) as staged:
        assert (staged.cards / "README.md").read_text() == "old index"
        assert not staged.checkpoint("big", 1).exists(), "weights are not copied"
        change(staged)
        assert snapshot(zoo.root)["model_cards/README.md"] == b"old index"
    after = snapshot(zoo.root)
    assert after == before | {
        "acert_zoo/zoo.json": b"new registry",
        "model_cards/README.md": b"new index",
        "model_cards/figures/a.svg": b"new figure",
    }


def test_an_error_while_it_is_made_changes_nothing(zoo: ZooFolder) -> None:
    before = snapshot(zoo.root)

    def failing() -> None:
        with all_or_nothing(zoo) as staged:
            change(staged)
            raise KeyError("flowers")

    with pytest.raises(KeyError):
        failing()
    assert snapshot(zoo.root) == before


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_an_error_while_it_is_moved_puts_everything_back(
    zoo: ZooFolder, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    before, done, replace = snapshot(zoo.root), [], os.replace

    def failing(source: Path, target: Path) -> None:
        if "before" not in Path(source).parts and zoo.root in Path(target).parents and ".staged" not in str(target):
            if len(done) == moved:
                raise OSError("no space left on device")
            done.append(target)
        replace(source, target)

    def change_all() -> None:
        with all_or_nothing(zoo) as staged:
            change(staged)
            monkeypatch.setattr(zoo_entry.os, "replace", failing)

    with pytest.raises(OSError, match="no space"):
        change_all()
    assert len(done) == moved
    assert zoo.registry not in done, "the registry is last"
    assert snapshot(zoo.root) == before
