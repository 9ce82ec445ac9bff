"""Renders model cards, tables and figures from the registry: python training/cards.py [--check].

training/report/cards.py says what. With --check nothing is written: stale files are named and the exit status is 1.
"""

from __future__ import annotations

from pathlib import Path

import click

from acert_zoo.errors import AcertZooError
from training.report.cards import render_all
from training.results.zoo_folder import ZooFolder


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; name stale files and exit with 1.")
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout to work on.")
def main(check: bool, root: Path | None) -> None:
    """Render model cards, tables and figures from the registry."""
    try:
        stale = render_all(ZooFolder(root) if root else ZooFolder(), check=check)
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    for path in stale:
        click.echo(f"{'stale' if check else 'wrote'} {path}")
    if check and stale:
        click.echo("run `make cards` and commit the result", err=True)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
