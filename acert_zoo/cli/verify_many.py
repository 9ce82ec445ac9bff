"""`acert-zoo verify` of several files: one report for all of them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from acert_zoo.cli.terminal import print_facts, print_json, printable, progress_bar
from acert_zoo.exact_numbers import duration


def verify_many(files: tuple[Path, ...], as_json: bool, **options: Any) -> int:
    """Runs the command; 1 where anything in any file is not proved. `options` are those of `verify_files`."""
    from acert_zoo.certificates.verify_files import verify_files

    started = time.perf_counter()
    counts: Counter[str] = Counter()
    wrong, documents, number = [], [], 0
    with progress_bar("verifying files") as progress:
        for report in verify_files(files, progress=progress, **options):
            number += 1
            counts.update(report.counts)
            if as_json:
                documents.append(report.to_dict())
            if not report.ok:
                wrong.append((report.path, report.failures, report.bad_lines))
    if as_json:
        documents.sort(key=lambda document: document["path"])
        print_json({"ok": not wrong, "counts": counts, "files": documents})
        return 1 if wrong else 0
    facts = [(status, f"{count:,}") for status, count in counts.items() if count or status == "proved"]
    title = f"{number:,} files: {'every line proved' if not wrong else 'NOT PROVED'}"
    print_facts(title, [*facts, ("time", duration(time.perf_counter() - started))])
    for path, failures, bad in sorted(wrong):
        for failure in failures:
            click.echo(f"{printable(path)}: {printable(failure)}")
        for line in bad:
            reasons = printable("; ".join(line.reasons))
            click.echo(f"{printable(path)}, line {line.number} ({printable(line.id)}): {line.status}: {reasons}")
    return 1 if wrong else 0
