"""Two real processes under torchrun (gloo) against one process with the same global batch."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.training import final_weights, one_thread, run_train, write_dataset, write_recipe

ROOT = Path(__file__).resolve().parents[3]
KEYS = ("loss", "natural_loss", "robust_loss", "train_accuracy", "mean_radius", "evaluations", "eps_t", "lr")


def torchrun() -> list[str]:
    """Two processes that meet at a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--nnodes", "1", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    return ["-m", "torch.distributed.run", *where, "--"]  # else torchrun takes --run for its own --run-path


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


GRADIENTS = """
import sys
sys.path.insert(0, sys.argv[1])
import dataclasses
import time
import torch
from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model, tiny_recipe
from training.compute import distributed
from training.method.clean_pass import update_running_statistics
from training.run.gradients import StepLoss
from training.method.objectives import OBJECTIVES
distributed.initialize("cpu")
results = {}
for name in OBJECTIVES:
    model = tiny_model(3)
    network = trace(model)
    settings = {"optimizer": {"l1": 1e-3}, "radius": {"evaluations": 3}, "regularizers": {"tolerance": 0.9}}
    batch = tiny_batch(network, n=8, eps_t=0.03, recipe=tiny_recipe(objective=name, kappa=0.25, **settings))
    scale = torch.linspace(0.02, 0.2, 8, dtype=torch.float64)
    scale[::3] = torch.nan
    block = slice(distributed.rank() * 8 // distributed.world_size(), None)
    block = slice(block.start, block.start + 8 // distributed.world_size())
    noise = batch.noise()[block]
    local = {"images": batch.images[block], "labels": batch.labels[block], "scale": scale[block]}
    batch = dataclasses.replace(batch, noise=lambda: noise, **local)
    step_loss = distributed.parallel(StepLoss(model, batch.recipe))
    loss = step_loss(batch)
    loss.total.backward()
    update_running_statistics(network, model, loss.clean)
    results[name] = [distributed.mean_over_ranks(loss.total.detach()), *(p.grad for p in model.parameters())]
    results[name] += [b.double() for b in model.buffers()] + [distributed.gather_over_ranks(loss.radius).flatten()]
with distributed.first_process_of_machine():
    time.sleep(0.5 if distributed.rank() == 0 else 0)
    with open(sys.argv[2] + ".order", "a") as file:
        file.write(str(distributed.rank()))
if distributed.rank() == 0:
    torch.save(results, sys.argv[2])
distributed.shutdown()
"""


def test_one_step_of_every_objective_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, regularisers, gradients, running statistics and radii of two half batches are the whole batch's."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    arguments = [str(script), str(ROOT)]
    monkeypatch.setattr(sys, "argv", [*arguments, str(tmp_path / "one")])
    runpy.run_path(str(script))
    command = [sys.executable, *torchrun(), *arguments, str(tmp_path / "two")]
    done = subprocess.run(command, env=one_thread(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [torch.load(tmp_path / name, weights_only=True) for name in ("one", "two")]
    assert results[0]["acert"][-1].unique().numel() > 2  # 0, eps_t, and radii in between
    for name, expected in results[0].items():
        for mine, value in zip(results[1][name], expected, strict=True):
            torch.testing.assert_close(mine, value, rtol=1e-9, atol=1e-12, msg=name)
    assert [(tmp_path / f"{name}.order").read_text() for name in ("one", "two")] == [
        "0",
        "01",
    ]  # first_process_of_machine


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run of a process; one of two; one of two that is stopped after an epoch and goes on as one process."""
    folder = tmp_path_factory.mktemp("distributed")
    # 190 images: some are left out of each epoch, so that the search meets samples it knows nothing of
    data = ["--data-root", write_dataset(folder / "data", 190)]
    # SGD: Adam makes full steps of gradients that are 0 but for rounding (biases in front of BatchNorm). No ramp: in
    # its first boxes, of radius 1e-6, rounding decides which neurons cross 0, and the tightness's gradient jumps there
    changes = ["optimizer.name=sgd", "optimizer.lr=0.02", "radius.ramp_epochs=0", "regularizers.tight=0"]
    recipe = ["--recipe", write_recipe(folder / "tiny.toml", kappa=0.5), *(w for c in changes for w in ("--set", c))]
    for name, launcher in (("one", []), ("two", torchrun())):
        result = run_train(*recipe, *data, "--run", folder / name, launcher=launcher)
        assert result.returncode == 0, result.stderr[-3000:]
        # of the first process alone: the beginning, three epochs and the end
        assert len(result.stdout.splitlines()) == 5, result.stdout
    stopped = run_train(*recipe, *data, "--run", folder / "both", "--max-minutes", 0, launcher=torchrun())
    assert stopped.returncode == 0, stopped.stderr[-3000:]
    assert "stopped at step 4" in stopped.stdout  # ranks agree at the end of an epoch, or every 20 steps
    resumed = run_train("--resume", folder / "both", *data)
    assert resumed.returncode == 0, resumed.stderr
    return {name: folder / name for name in ("one", "two", "both")}


@pytest.mark.parametrize("name", ["two", "both"])
def test_the_trajectory_of_one_process(runs: dict[str, Path], name: str) -> None:
    """Losses, radii and their cost, epoch by epoch. Float32 sums in another order are all that may differ."""
    assert len(rows(runs[name])) == 3
    for mine, expected in zip(rows(runs[name]), rows(runs["one"]), strict=True):
        for key in KEYS:
            assert mine[key] == pytest.approx(expected[key], rel=2e-4, abs=1e-7), (mine["epoch"], key)
        for key in ("accuracy", "acr_percent"):
            assert mine[key] == pytest.approx(expected[key], abs=2.0), key  # one of 60 images is 1.7 %
    assert rows(runs["one"])[-1]["mean_radius"] > 0


@pytest.mark.parametrize("name", ["two", "both"])
def test_weights_and_synchronised_statistics(runs: dict[str, Path], name: str) -> None:
    """BatchNorm's running statistics are those of the global batch, not of one rank's half."""
    expected = final_weights(runs["one"])
    assert any("running_var" in key for key in expected)
    for key, value in final_weights(runs[name]).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["two", "both"])
def test_what_the_search_learned_is_kept_for_each_sample(runs: dict[str, Path], name: str) -> None:
    states = [torch.load(runs[k] / "last.pt", weights_only=True) for k in ("one", name)]
    expected, mine = (s["scales"] for s in states)
    assert (bool(expected.isfinite().sum() > 60), bool(expected.isnan().any())) == (True, True)
    assert torch.equal(mine.isnan(), expected.isnan())
    torch.testing.assert_close(mine, expected, rtol=2e-3, atol=1e-6, equal_nan=True)


def test_only_the_first_process_writes(runs: dict[str, Path]) -> None:
    assert sorted(os.listdir(runs["two"])) == ["environment.json", "last.pt", "log.jsonl", "recipe.json"]
    assert [row["epoch"] for row in rows(runs["two"])] == [1, 2, 3]  # no line twice
    assert json.loads((runs["two"] / "environment.json").read_text())["processes"] == 2
