"""Decided test images: shards that join, counts by hand, and what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acert_zoo.certificates.shards import Shard
from acert_zoo.certificates.verdict_file import VerdictLine
from acert_zoo.data import datasets
from acert_zoo.errors import InvalidInputError
from tests.support.models import SHAPE, small_model
from training.results.decide import Decided, decide_shard, gather, store
from training.results.decided_table import decided_table, read_decided
from training.results.subject import Subject
from training.results.zoo_folder import ZooFolder


def subject() -> Subject:
    model = small_model(1)
    return Subject(model, "it", 1, "mnist", "0.4", str(model.weights_sha256))


def line(i: int, status: str, method: str, seconds: float = 2.0) -> VerdictLine:
    return VerdictLine(
        id=str(i), pixel_sha256="0" * 64, label=0, prediction=0, status=status, method=method, bound=None, cases=0,
        seconds=seconds, note="", data=None,
    )  # fmt: skip


def decided() -> Decided:
    lines = [
        line(0, "robust", "ibp"),
        line(1, "robust", "crown"),
        line(2, "robust", "branch-and-bound"),
        line(3, "not robust", "none"),
        line(4, "not robust", "pgd"),
        line(5, "undecided", ""),
        line(6, "robust", "ibp"),
        line(7, "not robust", "pgd"),
    ]
    return Decided("2/255", 60.0, tuple(lines))


def test_counts_by_hand() -> None:
    entry = decided().to_dict()
    assert entry["counts"] == {"misclassified": 1, "refuted": 2, "robust": 4, "undecided": 1}
    assert entry["certified_accuracy_ibp"] == 25
    assert entry["certified_accuracy_without_splits"] == 37.5
    assert entry["certified_accuracy"] == 50
    assert entry["attacked_accuracy"] == 62.5
    assert entry["undecided"] == 12.5
    assert entry["attacks"] == ["pgd"]
    assert entry["seconds_per_image"] == 2
    assert "| 2/255 | 8 | 25.0 | 37.5 | 50.0 | 62.5 (PGD) | 12.5 |" in decided_table([entry])


def test_shards_join_to_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, *SHAPE[1:], SHAPE[0]), dtype=np.uint8)
    it = subject()
    labels = it.model(datasets.to_pixels(pixels)).argmax(1).numpy()
    monkeypatch.setattr(datasets, "load_split", lambda *_: (pixels, labels))
    for number in (1, 2):
        decide_shard(it, "1/255", 5, tmp_path, budget=20, shard=Shard(number, 2))
        if number == 1:  # images 0, 2, 4: the first one only is a run from the first on
            assert len(gather(it, "1/255", tmp_path, 20).lines) == 1
    joined = gather(it, "1/255", tmp_path, 20)
    whole = decide_shard(it, "1/255", 5, tmp_path / "whole", budget=20)
    alone = gather(it, "1/255", whole.parent, 20)
    assert [v.id for v in joined.lines] == ["0", "1", "2", "3", "4"]
    assert [(v.id, v.status, v.pixel_sha256) for v in joined.lines] == [
        (v.id, v.status, v.pixel_sha256) for v in alone.lines
    ]
    with pytest.raises(InvalidInputError, match="limit"):
        decide_shard(it, "1/255", 7, tmp_path, budget=20)
    with pytest.raises(InvalidInputError, match="no verdict"):
        gather(it, "2/255", tmp_path, 20)


def test_more_images_replace_fewer(tmp_path: Path) -> None:
    zoo, it = ZooFolder(tmp_path), subject()
    store(zoo, it, decided())
    other = Decided("1/255", 60.0, decided().lines[:4])
    store(zoo, it, other)
    document: dict[str, Any] = json.loads(zoo.decided("it", 1).read_text())
    assert [(e["eps"], e["n"]) for e in document["decided"]] == [("1/255", 4), ("2/255", 8)]
    with pytest.raises(InvalidInputError, match="do not replace"):
        store(zoo, it, Decided("2/255", 60.0, decided().lines[:4]))
    assert read_decided(zoo.decided("it", 1), "f" * 64) == []  # of other weights
    assert read_decided(zoo.decided("none", 1), it.sha256) == []
