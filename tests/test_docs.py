"""Pages name places that are there, and every page is reached from README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TOP = ("acert_zoo", "benchmarks", "checker", "docs", "scripts", "tests", "training")
PATH = re.compile(rf"`((?:{'|'.join(TOP)})/[\w./*-]+)`")
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def links(page: Path) -> set[Path]:
    return {(page.parent / target).resolve() for target in LINK.findall(page.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not any(ROOT.glob(name.rstrip("/")))] == []
    assert [str(target) for target in links(page) if not target.exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "architecture.md"], ids=lambda page: page.name)
def test_the_tables_of_places_name_files_that_are_there(page: Path) -> None:
    """A file without a folder lies beside the one that the row names before it."""
    rows = re.findall(r"^\| [^|]+ \| ([^|]*`(?:acert_zoo|training)/[^|]*) \|$", page.read_text(encoding="utf-8"), re.M)
    assert len(rows) >= 8
    for row in rows:
        folder = ROOT
        for name in re.findall(r"`([\w/.*]*\.\w+)`", row):
            path = ROOT / name if "/" in name else folder / name
            assert any(path.parent.glob(path.name)), f"{name} in: {row}"
            folder = path.parent


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), {ROOT / "README.md"}
    while left:
        page = left.pop()
        reached.add(page)
        left |= {target for target in links(page) if target.suffix == ".md" and target.is_file()} - reached
    assert set(PAGES) <= reached
