"""What the commands print with: colours and boxes on a terminal, plain columns in a pipe."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

Progress = Callable[[int, int], None]


def print_json(document: Any) -> None:
    """The one JSON document of a command on stdout; numbers that JSON lacks (inf, NaN) become null."""
    click.echo(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


def printable(text: str) -> str:
    """`text` without control characters: a file name must not steer a terminal."""
    return text if text.isprintable() else repr(text)[1:-1]


def print_facts(title: str, facts: Sequence[tuple[str, str]]) -> None:
    """A title and aligned "name  value" lines."""
    width = max((len(name) for name, _ in facts), default=0)
    click.secho(title, bold=True)
    for name, value in facts:
        click.echo(f"  {click.style(name.ljust(width), fg='cyan')}  {value}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table: boxed on a terminal, columns separated by two spaces in a pipe. `right`: columns set flush right.

    The plain form is not rich's, which wraps or cuts cells at 80 columns there: a pipe wants one row a line.
    """
    if sys.stdout.isatty():
        _print_boxed(columns, rows, right)
        return
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _print_boxed(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ROUNDED, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(Text(cell, style="red" if cell.endswith("(wrong)") else "") for cell in row))
    Console(markup=False, highlight=False, emoji=False).print(table)


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Progress | None]:
    """A function of (images done, images in all) that moves a bar on stderr; None where stderr is not a terminal.

    `total`: images in all, where they are known beforehand.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def resumable(description: str, out: Path | None, total: int | None = None) -> Iterator[Progress | None]:
    """As `progress_bar`, and an interrupt says that `out` keeps what was done, where there is such a file or folder."""
    try:
        with progress_bar(description, total) as progress:
            yield progress
    except KeyboardInterrupt as error:
        if out is not None:
            error.add_note(f"What was done is in {out}; the same command continues.")
        raise
