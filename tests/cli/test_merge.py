"""`acert-zoo certify --shard` and `acert-zoo merge`: parts of a run, joined, are the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from acert_zoo import Certificates
from tests.support.cli import make_data, make_zoo, refused, run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return make_zoo(tmp_path, monkeypatch)


def test_shards_joined_are_one_run(zoo: str, tmp_path: Path) -> None:
    make_data(tmp_path / "data", 12)
    certify = ("certify", "--model", zoo, "--data", "cifar10", "--data-root", tmp_path / "data", "--batch-size", "3")
    run(*certify, "--out", tmp_path / "whole.jsonl")
    for k in (2, 1):
        assert run(*certify, "--shard", f"{k}/2", "--out", tmp_path / f"part{k}.jsonl").exit_code == 0
    assert Certificates.load(tmp_path / "part2.jsonl").ids == [str(i) for i in range(6, 12)]
    result = run("merge", tmp_path / "part2.jsonl", tmp_path / "part1.jsonl", "--out", tmp_path / "out.jsonl")
    assert "12 certificates of 2 files" in result.stdout
    whole, merged = (Certificates.load(tmp_path / f"{name}.jsonl") for name in ("whole", "out"))
    assert merged.ids == whole.ids
    assert torch.equal(merged.radius, whole.radius)
    assert merged.pixel_sha256 == whole.pixel_sha256
    document = json.loads(run("merge", tmp_path / "part2.jsonl", "--out", tmp_path / "out.jsonl", "--json").stdout)
    assert document == {"path": str(tmp_path / "out.jsonl"), "n": 6, "files": 1, "missing": 6}
    refused("is both in", "merge", tmp_path / "part1.jsonl", tmp_path / "whole.jsonl", "--out", tmp_path / "out.jsonl")


def test_bundled_images_and_wrong_shards(zoo: str, tmp_path: Path) -> None:
    model = ("certify", "--model", zoo)
    document = json.loads(run(*model, "--limit", "7", "--batch-size", "2", "--shard", "4/4", "--json").stdout)
    assert [image["id"] for image in document["images"]] == ["6"]
    refused("expected K/N", *model, "--shard", "5/4")
    refused("make at most 1 shards", *model, "--shard", "1/2")
    refused("--skip-unreadable", *model, "--shard", "1/2", "--skip-unreadable", tmp_path)
