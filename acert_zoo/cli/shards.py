"""`acert-zoo certify --engine`: a data set in shards, into a folder of certificate files."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acert_zoo.cli.numbers import percent
from acert_zoo.cli.terminal import print_facts, print_json, printable, resumable
from acert_zoo.exact_numbers import down, duration

if TYPE_CHECKING:
    from torch import nn

# What needs all images at once, or belongs to single files.
_NOT_IN_SHARDS = ("attack", "skip_unreadable", "shard", "limit", "classes")


def certify_in_shards(
    model: nn.Module, options: dict[str, Any], eps: list[tuple[str, Fraction]], share: Fraction | None
) -> int:
    """Runs the command; 1 where less than `share` is certified at an eps."""
    for name in _NOT_IN_SHARDS:
        if options[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with --engine.")
    if options["out"] is None:
        raise click.UsageError("--engine writes a folder of certificate files: --out FOLDER.")
    images: tuple[str, ...] = options["images"]
    if bool(images) == bool(options["data"]) or len(images) > 1:
        raise click.UsageError("--engine certifies one data set: --data NAME or PATH, or one folder of images.")
    from acert_zoo import certify_dataset

    started = time.perf_counter()
    with resumable("certifying", options["out"]) as progress:
        result = certify_dataset(
            model,
            options["data"] or images[0],
            out=options["out"],
            engine=options["engine"],
            ray_address=options["ray_address"],
            workers=options["workers"],
            threads=options["threads"] or 1,
            progress=progress,
            **{k: options[k] for k in ("split", "data_root", "labels", "resize", "method", "rounding")},
            **{k: options[k] for k in ("batch_size", "shard_size", "budget", "device")},
        )
    summary = result.summary([text for text, _ in eps])
    if options["as_json"]:
        print_json({"folder": str(result.folder), "files": len(result.files), **summary})
    else:
        _print(result.folder, len(result.files), summary, result.header.rounding, time.perf_counter() - started)
    met = [value for value in summary["certified"].values() if share is None or (value or 0) >= share]
    return 0 if len(met) == len(eps) else 1


def _print(folder: Path, files: int, summary: dict[str, Any], rounding: str, seconds: float) -> None:
    n = summary["images"]
    facts = [("images", f"{n:,} in {files:,} files")]
    if summary["accuracy"] is not None:
        facts.append(("accuracy", percent(round(n * summary["accuracy"]), n)))
    if summary["acr"] is not None:
        facts.append(("ACR", down(summary["acr"], 6)))
    facts += [(f"certified at {e}", percent(round(n * v), n)) for e, v in summary["certified"].items() if v is not None]
    print_facts(printable(str(folder)), [*facts, ("rounding", rounding), ("time", duration(seconds))])
