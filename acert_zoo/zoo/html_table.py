"""How results and records show themselves in notebooks: a heading and a small table."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


def html_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A heading and a table of two columns; every text escaped."""
    cells = "".join(f"<tr><th style='text-align:left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<div><strong>{escape(title)}</strong><table>{cells}</table></div>"
