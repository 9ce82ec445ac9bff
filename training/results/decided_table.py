"""What is stored of decided images (`training/results/decide.py`), and the table that shows it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.results.zoo_folder import read_document

SHARES = (
    "certified by IBP, % | without splits, % | certified, % | under attack, % | undecided, % | budget; time an image, s"
)


def read_decided(path: Path, weights_sha256: str | None) -> list[dict[str, Any]]:
    """The entries of a model's file; none where there is no file, or it is of other weights."""
    document = read_document(path, weights_sha256)
    return [] if document is None else list(document["decided"])


def _shares(e: Mapping[str, Any]) -> str:
    return (
        f"{e['certified_accuracy_ibp']:.1f} | {e['certified_accuracy_without_splits']:.1f} "
        f"| {e['certified_accuracy']:.1f} | {e['attacked_accuracy']:.1f} ({_attacks(e)}) | {e['undecided']:.1f} "
        f"| {e['budget_seconds']:g}; {e['seconds_per_image']:.1f}"
    )


def _attacks(e: Mapping[str, Any]) -> str:
    """Which attacks every image that is not proved robust has met."""
    return "PGD, AutoAttack" if "autoattack" in e.get("attacks", ()) else "PGD"


def decided_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Both sides of robust accuracy as a Markdown table."""
    rows = [
        f"| eps | test images | {SHARES} | robust accuracy, 95 % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for e in entries:
        low, high = e["robust_accuracy_95"]
        rows.append(f"| {e['eps']} | {e['n']:,} | {_shares(e)} | {low:.1f} to {high:.1f} |")
    return "\n".join(rows)


def decided_overview(models: Iterable[tuple[str, Sequence[Mapping[str, Any]]]], link: str) -> str:
    """Several (name, entries) as one Markdown table; `link` is the folder of the cards; "" if none."""
    rows = [
        f"| model | eps | test images | accuracy, % | {SHARES} |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, entries in models:
        for e in entries:
            correct = 100 * (e["n"] - e["counts"]["misclassified"]) / e["n"]
            rows.append(
                f"| [`{name}`]({link}{name}.md) | {e['eps']} | first {e['n']:,} | {correct:.1f} | {_shares(e)} |"
            )
    return "\n".join(rows) if len(rows) > 2 else ""
