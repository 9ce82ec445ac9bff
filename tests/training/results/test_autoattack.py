"""AutoAttack on what is left undecided: what it breaks is checked and counted, what it does not is said to be tried."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from acert_zoo.certificates.verdict_file import VerdictLine, read_verdicts
from acert_zoo.data import datasets
from tests.support.models import SHAPE, small_model
from training.results.autoattack import NOTE, attack_undecided, tried
from training.results.decide import Decided, decide_shard, gather
from training.results.subject import Subject

pytest.importorskip("pyautoattack")


@pytest.mark.parametrize(("eps", "broken"), [("1/2", True), ("1/100000", False)])
def test_undecided_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eps: str, broken: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE[1:], SHAPE[0]), dtype=np.uint8)
    model = small_model(1)
    subject = Subject(model, "it", 1, "mnist", "0.4", str(model.weights_sha256))
    labels = model(datasets.to_pixels(pixels)).argmax(1).numpy()
    monkeypatch.setattr(datasets, "load_split", lambda *_: (pixels, labels))
    path = decide_shard(subject, eps, 2, tmp_path, budget=20)
    file = read_verdicts(path)
    undecided: list[VerdictLine] = [
        dataclasses.replace(line, status="undecided", method="", bound=None, note="time is over", data=None)
        for line in file.lines
    ]
    assert not tried(undecided)
    own = tmp_path / "it.v1.x.autoattack.jsonl"
    for _ in range(2):  # the second time there is nothing left to do
        attack_undecided(subject, file.header, undecided, own, attacks=["apgd-ce"], iterations=10)
    lines = read_verdicts(own).lines
    assert [line.id for line in lines] == ["0", "1"]
    if broken:
        assert {(line.status, line.method) for line in lines} == {("not robust", "autoattack")}
    else:
        assert all(line.status == "undecided" and line.note == NOTE + "time is over" for line in lines)
    assert tried(lines)
    assert Decided(eps, 20, lines).to_dict()["attacks"] == ["pgd", "autoattack"]
    assert len(gather(subject, eps, tmp_path, 20).lines) == 2
