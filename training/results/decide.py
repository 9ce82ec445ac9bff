"""Decides test images of a zoo model: what is certified, what is refuted, and what the time did not suffice for.

    python training/evaluate.py --model NAME --decide 2/255 --limit 200 --verdicts FOLDER [--budget 60] [--shard K/N]

Verdicts, proofs included, go to files of `acert-zoo decide` in FOLDER, one a shard: images K, K + N, K + 2 N, ... of
the first LIMIT; the same command goes on where it was broken off. With --autoattack the images left undecided are
attacked by the ensemble. With --store what all files of FOLDER hold is counted, and the counts go beside the stored
evaluation, where cards find them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from acert_zoo.certificates.decide import decide
from acert_zoo.certificates.shards import Shard
from acert_zoo.certificates.verdict_file import VerdictLine, read_verdicts
from acert_zoo.complete.verdict import BRANCH_AND_BOUND, NOT_ROBUST, PROOF_METHODS, ROBUST, UNDECIDED
from acert_zoo.data import datasets
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.gallery.evaluations import wilson_interval
from training.results import autoattack
from training.results.decided_table import decided_table, read_decided
from training.results.evaluation import floor_decimal
from training.results.subject import Subject, zoo_subject
from training.results.zoo_folder import ZooFolder, document_head, dump_json, write_atomic


@dataclass(frozen=True)
class Decided:
    """Verdicts of the first n test images at one eps; `budget`: seconds of wall time an image was given."""

    eps: str
    budget: float
    lines: tuple[VerdictLine, ...]

    def percent(self, count: int) -> float:
        return floor_decimal(Fraction(100 * count, len(self.lines)), 6)

    def to_dict(self) -> dict[str, Any]:
        """Counts, and what follows from them; shares in percent, rounded down, of the same n images."""
        n = len(self.lines)
        status = Counter(line.status for line in self.lines)
        by = Counter(line.method for line in self.lines if line.status == ROBUST)
        unbroken = n - status[NOT_ROBUST]
        seconds = sum(line.seconds for line in self.lines)
        return {
            "eps": self.eps,
            "n": n,
            "budget_seconds": self.budget,
            "counts": {
                "misclassified": sum(line.method == "none" for line in self.lines),
                "refuted": sum(line.status == NOT_ROBUST and line.method != "none" for line in self.lines),
                "robust": status[ROBUST],
                "undecided": status[UNDECIDED],
            },
            "proved_by": {method: by[method] for method in PROOF_METHODS},
            "certified_accuracy_ibp": self.percent(by["ibp"]),
            "certified_accuracy_without_splits": self.percent(status[ROBUST] - by[BRANCH_AND_BOUND]),
            "certified_accuracy": self.percent(status[ROBUST]),
            "attacked_accuracy": self.percent(unbroken),
            "attacks": ["pgd", "autoattack"] if autoattack.tried(self.lines) else ["pgd"],
            "undecided": self.percent(status[UNDECIDED]),
            "robust_accuracy_95": [
                round(wilson_interval(status[ROBUST], n)[0], 2),
                round(wilson_interval(unbroken, n)[1], 2),
            ],
            "seconds": round(seconds, 1),
            "seconds_per_image": round(seconds / n, 2),
        }


def verdict_file(folder: Path, subject: Subject, eps: str, shard: Shard) -> Path:
    return folder / f"{subject.name}.v{subject.version}.{_plain(eps)}.{shard.number}-of-{shard.count}.jsonl"


def _plain(eps: str) -> str:
    return eps.strip().replace("/", "_")


def decide_shard(
    subject: Subject,
    eps: str,
    limit: int,
    folder: Path,
    *,
    budget: float,
    shard: Shard | None = None,
    data_root: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Decides a shard of the first `limit` test images; returns its verdict file.

    Raises:
        InvalidInputError: there are fewer test images, or fewer images than shards.
    """
    shard = shard or Shard(1, 1)
    parse_eps(eps)
    images, labels = datasets.load_split(subject.dataset, "test", data_root)
    if not shard.count <= limit <= len(labels):
        raise InvalidInputError(f"limit is {limit}; expected {shard.count} to {len(labels)}")
    rows = list(range(shard.number - 1, limit, shard.count))
    folder.mkdir(parents=True, exist_ok=True)
    path = verdict_file(folder, subject, eps, shard)
    decide(
        subject.model,
        datasets.to_pixels(np.array(images[rows])),
        torch.from_numpy(np.array(labels[rows])).long(),
        eps=eps,
        budget=budget,
        out=path,
        ids=[str(i) for i in rows],
        dataset=subject.dataset,
        split="test",
        progress=progress,
    )
    return path


def gather(subject: Subject, eps: str, folder: Path, budget: float) -> Decided:
    """What all verdict files of the folder hold of this model at eps: the longest run of images from the first on.

    An image that two files hold is taken from the one that decided it.

    Raises:
        InvalidInputError: there is none, or they are of other weights, or contradict each other.
    """
    found: dict[str, VerdictLine] = {}
    for path in sorted(folder.glob(f"{subject.name}.v{subject.version}.{_plain(eps)}.*.jsonl")):
        file = read_verdicts(path, partial=True)
        if file.header.weights_sha256 != subject.sha256 or file.altered:
            raise InvalidInputError(f"{path}: verdicts of other weights, or altered ones")
        for line in file.lines:
            other = found.get(line.id)
            if other is None or other.status == UNDECIDED:
                found[line.id] = line
            elif line.status not in (UNDECIDED, other.status):
                raise InvalidInputError(
                    f"{path}: image {line.id} is {line.status} here, {other.status} in another file"
                )
    lines: list[Any] = []
    while str(len(lines)) in found:
        lines.append(found[str(len(lines))])
    if not lines:
        raise InvalidInputError(f"{folder} holds no verdict of the first test image at {eps}")
    return Decided(eps, budget, tuple(lines))


def store(zoo: ZooFolder, subject: Subject, decided: Decided) -> None:
    """Puts the counts at this eps into the model's file, which holds one entry for each eps.

    Raises:
        InvalidInputError: the entry that is there counts more images.
    """
    assert subject.version is not None
    path = zoo.decided(subject.name, subject.version)
    entries = read_decided(path, subject.sha256)
    old = next((e for e in entries if parse_eps(e["eps"]) == parse_eps(decided.eps)), None)
    if old is not None and old["n"] > len(decided.lines):
        raise InvalidInputError(f"{path} has verdicts of {old['n']} images; {len(decided.lines)} do not replace them")
    entries = [e for e in entries if e is not old] + [decided.to_dict()]
    document = {
        **document_head(subject.name, subject.version, subject.sha256, subject.dataset),
        "rounding": "real-sound",
        "decided": sorted(entries, key=lambda e: parse_eps(e["eps"])),
    }
    write_atomic(path, dump_json(document))


def decide_and_report(
    zoo: ZooFolder,
    name: str,
    eps: str,
    limit: int,
    folder: Path,
    budget: float,
    shard: str | None,
    data_root: str | None,
    *,
    store_it: bool,
    ensemble: bool = False,
) -> None:
    """What `training/evaluate.py --decide` does; exits with 2 on what a user can cause."""
    try:
        subject = zoo_subject(name)
        part = None if shard is None else Shard.parse(shard)
        path = decide_shard(subject, eps, limit, folder, budget=budget, shard=part, data_root=data_root)
        decided = gather(subject, eps, folder, budget)
        if ensemble:
            own = path.with_name(f"{subject.name}.v{subject.version}.{_plain(eps)}.autoattack.jsonl")
            header = read_verdicts(path, partial=True).header
            autoattack.attack_undecided(subject, header, decided.lines, own, data_root=data_root)
            decided = gather(subject, eps, folder, budget)
        click.echo(f"{path}\n{decided_table([decided.to_dict()])}")
        if store_it:
            store(zoo, subject, decided)
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
