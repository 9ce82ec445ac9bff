"""`acert-zoo merge`: certificate files of one run become one."""

from __future__ import annotations

from pathlib import Path

import click

from acert_zoo.certificates.merge import merge_files
from acert_zoo.cli.terminal import print_json, printable, progress_bar


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The file to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def merge(files: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Join certificate FILES, or folders of them, of one run: shards of `certify --shard`, or of `--engine`.

    Refuses files of different models, data sets or settings, incomplete ones, and an image that two of them hold. The
    lines are copied unchanged, in the order of their ids.
    """
    with progress_bar("merging") as progress:
        merged = merge_files(files, out, progress=progress)
    if as_json:
        document = {"path": merged.path, "n": merged.header.n, "files": merged.files, "missing": merged.missing}
        print_json(document)
        return
    click.echo(f"{printable(merged.path)}: {merged.header.n:,} certificates of {merged.files:,} files")
    if merged.missing:
        click.echo(f"Of the indices up to the largest, {merged.missing:,} are missing: is a shard?", err=True)
