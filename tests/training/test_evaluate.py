"""Evaluating test images: the radii of `certify`, the same in several processes, and `--check` against what is stored.

Also tested here: training/compute/environment.py, training/results/subject.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import acert_zoo
from acert_zoo.data.datasets import load_split, to_pixels
from acert_zoo.errors import InvalidInputError
from tests.support.training import evaluation
from tests.support.zoo import empty_zoo, make_data, make_run, plain_figures, use_registry
from training.evaluate import evaluate, main, summary
from training.export import export
from training.results.evaluation import differences, store_evaluation
from training.results.zoo_folder import REPOSITORY, ZooFolder
from training.run.deployment import deployed_model, read_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_radii_are_those_of_certify_and_the_limit_is_a_prefix(tmp_path: Path, run: Path) -> None:
    root = str(make_data(tmp_path / "data", run, test=30))
    recipe, state = read_run(run)
    model = deployed_model(recipe, state)
    common = {"name": "it", "version": None, "weights_sha256": "a" * 64, "eps_max": "8.8/255", "data_root": root}
    full, part = evaluate(model, "cifar10", **common), evaluate(model, "cifar10", limit=12, **common)
    images, labels = load_split("cifar10", "test", root)
    direct = acert_zoo.certify(model, to_pixels(np.array(images)), torch.from_numpy(labels))
    assert np.array_equal(direct.radius.numpy(), full.radius)
    assert np.array_equal(direct.correct.numpy(), full.correct)
    assert full.n == full.total == 30
    assert (full.radius > 0).sum() >= 5
    assert not full.radius[~full.correct].any()
    assert np.allclose(part.radius, full.radius[:12], rtol=1e-5)
    assert (part.n, part.total) == (12, 30)
    assert full.inexact == (3, 5)
    assert evaluate(model, "cifar10", limit=4, **common).inexact == (3,)
    assert "JPEG approximations" in summary(full)
    with pytest.raises(InvalidInputError, match="limit"):
        evaluate(model, "cifar10", limit=0, **common)


def test_processes_give_identical_results(tmp_path: Path, run: Path) -> None:
    root = make_data(tmp_path / "data", run, test=1100)  # three chunks, shared by two processes
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = CliRunner().invoke(main, ["--run", str(run), "--data-root", str(root), "--json"])
    finally:
        torch.set_num_threads(threads)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    script, out = str(REPOSITORY / "training" / "evaluate.py"), tmp_path / "shared.json"
    command = [sys.executable, *launcher, script, "--run", str(run), "--data-root", str(root), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    shared = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert shared.returncode == 0, shared.stderr[-2000:]
    assert shared.stdout.count("certified accuracy at 2/255") == 1  # only the first process prints
    results = [json.loads(alone.stdout), json.loads(out.read_text())]
    assert [r.pop("environment")["processes"] for r in results] == [1, 2]
    assert results[0] == results[1]
    assert results[0]["n"] == 1100


def test_check_finds_a_changed_radius_metric_and_weights(tmp_path: Path) -> None:
    zoo = empty_zoo(tmp_path)
    it = evaluation([0.0, 0.01, 0.02], [False, True, True])
    store_evaluation(zoo, it)
    paths = (zoo.evaluation("it", 1), zoo.radii("it", 1))
    assert differences(it, *paths) == []
    near = evaluation([0.0, 0.01 * (1 - 1e-6), 0.02], [False, True, True])
    assert differences(near, *paths) == []
    moved = evaluation([0.0, 0.01, 0.021], [False, True, True])
    found = differences(moved, *paths)
    assert found[0].startswith("image 2: stored radius")
    assert any(line.startswith("acr ") for line in found)
    assert differences(evaluation([0.0, 0.01], [False, True]), *paths) == []  # fewer images: radii alone
    assert "sha256" in differences(evaluation([0.0], [False], weights_sha256="b" * 64), *paths)[0]


def test_command_line_on_a_run(tmp_path: Path, run: Path) -> None:
    root = str(make_data(tmp_path / "data", run, test=10))
    result = CliRunner().invoke(main, ["--run", str(run), "--data-root", root, "--limit", "8", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["n"] == 8
    assert json.loads((run / "evaluation.json").read_text()) == document
    for arguments, message in (
        (["--run", str(run), "--data", "mnist", "--data-root", root], "trained on cifar10"),
        (["--run", str(run), "--data-root", str(tmp_path)], "cifar10"),
        (["--run", str(run), "--model", "x"], "either"),
        (["--run", str(run), "--check"], "--check"),
        (["--model", "cifar10_kapa025"], "unknown model"),
    ):
        failed = CliRunner().invoke(main, arguments)
        assert failed.exit_code == 2
        assert message in failed.output


def test_check_of_a_registered_model(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(make_data(tmp_path / "data", run, test=12))
    zoo = empty_zoo(tmp_path / "zoo")
    plain_figures(monkeypatch)
    export(run, "cifar10_small", zoo=zoo, data_root=root)
    use_registry(monkeypatch, zoo)
    arguments = ["--model", "cifar10_small", "--data-root", root, "--root", str(zoo.root), "--check"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "cifar10_small.v1: reproduces the stored evaluation" in result.output
    path = zoo.radii("cifar10_small", 1)
    radii = np.load(path)
    radii[np.argmax(radii)] *= 1.01
    np.save(path, radii)
    failed = CliRunner().invoke(main, arguments)
    assert failed.exit_code == 1
    assert "1 differences" in failed.output


def test_store_replaces_figures_of_fewer_images(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(make_data(tmp_path / "data", run, test=12))
    zoo = empty_zoo(tmp_path / "zoo")
    plain_figures(monkeypatch)
    export(run, "cifar10_small", zoo=zoo, data_root=root, limit=3)
    use_registry(monkeypatch, zoo)
    arguments = ["--model", "cifar10_small", "--data-root", root, "--root", str(zoo.root), "--store"]
    assert {m.n for m in acert_zoo.model_info("cifar10_small").metrics} == {3}
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert {m.n for m in acert_zoo.model_info("cifar10_small").metrics} == {12}
    assert len(np.load(zoo.radii("cifar10_small", 1))) == 12
    refused = CliRunner().invoke(main, [*arguments, "--limit", "3"])
    assert refused.exit_code == 2
    assert "has an evaluation of 12 images; one of 3 does not replace it" in refused.output
    assert len(np.load(zoo.radii("cifar10_small", 1))) == 12
    assert CliRunner().invoke(main, [*arguments, "--check"]).exit_code == 2


@pytest.mark.parametrize("dataset", ["cifar10", "mnist", "tinyimagenet"])
def test_one_model_of_each_data_set_reproduces_its_card(dataset: str, data_root: Path) -> None:
    zoo = ZooFolder()
    names = [n for n in acert_zoo.list_models() if acert_zoo.model_info(n).dataset == dataset]
    models = [n for n in names if acert_zoo.model_info(n).kind == "model"]
    if not models:
        pytest.skip(f"no registered model of {dataset}")
    if not (data_root / dataset / "test_images.npy").exists():
        pytest.skip(f"{data_root} does not hold {dataset}")
    model = acert_zoo.load_model(models[0])
    info = model.info
    found = evaluate(
        model,
        dataset,
        name=info.name,
        version=info.version,
        weights_sha256=info.sha256,
        eps_max=info.eps_max,
        limit=100,
        data_root=str(data_root),
    )
    assert differences(found, zoo.evaluation(info.name, info.version), zoo.radii(info.name, info.version)) == []
