"""AutoAttack on the images that PGD did not break and that no proof covers: the other side of the undecided ones.

An image that was proved robust cannot be broken, so nothing else is left for the ensemble to try. What it finds goes to
a verdict file of its own beside those of the shards, checked exactly as every adversarial image; where it finds none,
the line says so. `gather` (`decide.py`) joins all files of a folder.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from acert_zoo.attacks.attack import attack
from acert_zoo.certificates.decide import packed
from acert_zoo.certificates.verdict_file import VerdictHeader, VerdictLine, VerdictWriter
from acert_zoo.complete.decider import Decider
from acert_zoo.complete.verdict import UNDECIDED
from acert_zoo.data import datasets
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.reading import read
from training.results.subject import Subject

NOTE = "AutoAttack found nothing; "


def tried(lines: Sequence[VerdictLine]) -> bool:
    """Whether AutoAttack has tried every image that is still undecided."""
    return all(line.note.startswith(NOTE) for line in lines if line.status == UNDECIDED)


def attack_undecided(
    subject: Subject,
    header: VerdictHeader,
    lines: Sequence[VerdictLine],
    path: Path,
    *,
    data_root: str | None = None,
    **options: object,
) -> None:
    """Tries the ensemble on the undecided of `lines`, whose ids are numbers of test images; resumable.

    Args:
        header: of the files that `lines` are from. path: the verdict file to write.
        options: of `acert_zoo.attack`: `attacks`, `iterations`, `queries`.

    Raises:
        MissingDependencyError: pyautoattack is not installed.
    """
    todo = [line for line in lines if line.status == UNDECIDED and not line.note.startswith(NOTE)]
    if not todo:
        return
    images, labels = datasets.load_split(subject.dataset, "test", data_root)
    decider: Decider | None = None
    with VerdictWriter(path, header, [line.id for line in todo]) as writer:
        for line in todo:
            if line.id in writer.kept:
                continue
            row = int(line.id)
            image = datasets.to_pixels(np.array(images[row : row + 1]))
            eps = parse_eps(header.eps)
            decider = decider or Decider(subject.model, read(subject.model, tuple(image.shape[1:])).network, eps)
            started = time.perf_counter()
            found = attack(
                subject.model,
                image,
                torch.tensor([int(labels[row])]),
                Fraction(decider.below),
                method="autoattack",
                **options,  # type: ignore[arg-type]
            )
            verdict = decider.refuted(image, int(labels[row]), found.adversarial, found.attack[0])
            seconds = round(line.seconds + time.perf_counter() - started, 3)
            if verdict is None:
                writer.append(dataclasses.replace(line, note=NOTE + line.note, seconds=seconds), None)
            else:
                new = dataclasses.replace(
                    line, status=verdict.status, method=verdict.method, prediction=verdict.prediction, note=""
                )
                writer.append(dataclasses.replace(new, seconds=seconds), packed(verdict))
