"""`acert-zoo site`: builds the gallery, a static site of the zoo's models."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("dest", type=click.Path(path_type=Path, file_okay=False))
@click.option("--model", "names", multiple=True, metavar="NAME", help="Only this model (may be given several times).")
@click.option(
    "--checkout",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="A clone of the repository.  [default: the one this package runs from]",
)
def site(dest: Path, names: tuple[str, ...], checkout: Path | None) -> None:
    """Build the gallery in the folder DEST: trade-off charts, model pages, image wall, proofs in the browser.

    Any web server offers it, for example: python -m http.server --directory DEST. Needs a clone of the repository,
    Node.js with npm, and pip install 'acert-zoo[site]'.
    """
    from acert_zoo.gallery.build import CHECKOUT, build_site

    pages = build_site(
        dest, checkout=checkout or CHECKOUT, names=names or None, report=lambda text: click.echo(text, err=True)
    )
    click.echo(f"wrote {len(pages)} pages to {dest}")
