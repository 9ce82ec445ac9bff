"""`certify --engine` writes a folder, `verify` proves all of its files, `merge` joins them.

Also tested here: cli/verify_many.py, certificates/verify_files.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from acert_zoo import Certificates, certify
from acert_zoo.certificates.file import format_file, read_file
from acert_zoo.data.datasets import to_pixels
from tests.support.cli import cifar_model, interrupted, make_data, make_zoo, posix, refused, run


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return make_zoo(tmp_path, monkeypatch)


def test_a_folder_of_shards_is_verified_and_merged(zoo: str, tmp_path: Path) -> None:
    images, labels = make_data(tmp_path / "data", 7)
    out = tmp_path / "run"
    arguments = ("--model", zoo, "--data", "cifar10", "--data-root", tmp_path / "data", "--batch-size", "2")
    result = run("certify", *arguments, "--engine", "local", "--out", out, "--eps", "1/255")
    assert result.exit_code == 0
    assert "7 in 1 files" in result.stdout
    document = json.loads(run("certify", *arguments, "--engine", "local", "--out", out, "--json").stdout)
    expected = certify(cifar_model(), to_pixels(images), labels, batch_size=2)
    assert (document["images"], document["accuracy"]) == (7, expected.accuracy)
    assert document["acr"] == pytest.approx(expected.acr)

    run("merge", out, "--out", tmp_path / "merged.jsonl")
    assert torch.equal(Certificates.load(tmp_path / "merged.jsonl").label, expected.label)
    verify = ("verify", out, tmp_path / "merged.jsonl", "--data-root", tmp_path / "data")
    proved = run(*verify)
    assert proved.exit_code == 0, proved.output
    assert "2 files: every line proved" in proved.stdout

    shard = out / "shard-0000000.jsonl"
    file = read_file(shard)
    shard.write_bytes(format_file(file.header, [file.lines[0], *file.lines[:0:-1]]))  # honest lines, other order
    assert run(*verify).exit_code == 0
    shard.write_bytes(shard.read_bytes().replace(b'"radius": "0.0', b'"radius": "0.9', 1))
    failed = run(*verify)
    assert failed.exit_code == 1
    assert "2 files: NOT PROVED" in failed.stdout
    assert f"{shard}, line " in failed.stdout
    assert json.loads(run(*verify, "--json").stdout)["ok"] is False


def test_arrays_by_their_path(zoo: str, tmp_path: Path) -> None:
    images, labels = make_data(tmp_path / "data", 5)
    path = tmp_path / "data" / "cifar10" / "test_images.npy"
    np.save(tmp_path / "labels.npy", labels)
    out = tmp_path / "c.jsonl"
    arguments = ("--data", path, "--labels", tmp_path / "labels.npy", "--out", out)
    assert run("certify", "--model", zoo, *arguments).exit_code == 0
    assert Certificates.load(out).label.tolist() == labels.tolist()
    assert run("verify", out, "--data", path).exit_code == 0
    np.save(path, 255 - images)
    assert "other pixels" in run("verify", out, "--data", path).stdout


def test_what_does_not_go_together(zoo: str, tmp_path: Path) -> None:
    model = ("certify", "--model", zoo, "--data", "cifar10")
    refused("--out FOLDER", *model, "--engine", "local")
    refused("--attack does not go with --engine", *model, "--engine", "local", "--out", tmp_path / "run", "--attack")
    refused("are for --engine ray", *model, "--workers", "2")
    refused("--shard-size is for --engine", *model, "--shard-size", "8")
    refused("one data set", "certify", "--model", zoo, "--engine", "local", "--out", tmp_path / "run")
    refused("are for --engine ray", "verify", tmp_path, "--ray-address", "x:1")
    refused("holds no certificate file", "verify", tmp_path)


@posix
def test_interrupted_it_keeps_whole_shards_and_the_same_command_goes_on(tmp_path: Path) -> None:
    make_data(tmp_path / "data", 400)
    cifar_model().save_pretrained(tmp_path / "model")
    out = tmp_path / "run"
    data = ("--data", "cifar10", "--data-root", tmp_path / "data")
    sizes = ("--batch-size", "2", "--shard-size", "20", "--engine", "local")
    arguments = ("certify", "--model", tmp_path / "model", *data, *sizes, "--out", out)
    code, messages = interrupted(arguments, lambda: (out / "shard-0000001.jsonl").exists())
    assert code == 130, messages
    assert f"What was done is in {out}; the same command continues." in messages
    assert "Traceback" not in messages
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*")}
    assert 2 <= len(before) < 20
    result = run(*arguments, "--json")
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (0, 400)
    assert all((out / name).stat().st_mtime_ns == when for name, when in before.items())
    assert len(list(out.glob("shard-*"))) == 20
