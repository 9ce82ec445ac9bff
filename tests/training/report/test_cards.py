"""Cards and blocks as files: what is generated is current, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

from tests.support.zoo import empty_zoo
from training.report import cards
from training.results.zoo_folder import ZooFolder


def test_blocks_are_replaced_between_their_markers_only() -> None:
    text = "a\n<!-- zoo-table -->\nold \\1\n<!-- /zoo-table -->\nb\n"
    filled = cards.fill_blocks(text, {"zoo-table": r"new \1", "zoo-figure": "unused"})
    assert filled == "a\n<!-- zoo-table -->\nnew \\1\n<!-- /zoo-table -->\nb\n"
    assert cards.fill_blocks(filled, {"zoo-table": r"new \1"}) == filled


def test_an_empty_zoo_has_an_index(tmp_path: Path) -> None:
    zoo = empty_zoo(tmp_path)
    assert [p.name for p in cards.render_all(zoo)] == ["README.md"]
    assert cards.render_all(zoo) == []


def test_the_cards_of_this_repository_are_current() -> None:
    assert cards.render_all(ZooFolder(), check=True) == []
