"""The loop: saving and resuming, failures that keep the last good state, and what a step must not do.

Also tested here: training/run/signals.py.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.training import tiny_recipe, write_dataset
from training.method import objectives
from training.run import loop
from training.run.loop import Trainer, build_model
from training.run.run_folder import RunError, RunFolder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


def same(a: Any, b: Any) -> bool:
    """Bit-for-bit equality of nested states."""
    if isinstance(a, torch.Tensor):
        return torch.equal(torch.nan_to_num(a, nan=-7.0), torch.nan_to_num(b, nan=-7.0))
    if isinstance(a, dict):
        timing = ("seconds", "processor_seconds")
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items() if k not in timing)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"ema": 0.9, "l1": 1e-5}},
        {"objective": "sabr"},
        {"optimizer": {"name": "muon"}, "precision": "bfloat16", "kappa_start": 0.9, "precise_bn": 2},
    ],
)
def test_a_stopped_run_resumes_bit_for_bit(root: str, tmp_path: Path, changes: dict) -> None:
    recipe = tiny_recipe(**changes)
    whole, folder = Trainer(recipe, root), RunFolder.create(tmp_path / "whole", recipe)
    assert whole.train(folder) == "finished"
    folder = RunFolder.create(tmp_path / "parts", recipe)
    parts = 0
    while True:
        trainer = Trainer(folder.recipe(), root)
        if state := folder.load():
            trainer.load(state)
        folder.trim_log(trainer.epoch)
        parts += 1
        if trainer.train(folder, max_minutes=0) == "finished":  # stops after every step
            break
    assert parts == whole.total_steps
    assert same(folder.load(), RunFolder(tmp_path / "whole").load())
    rows, expected = folder.rows(), RunFolder(tmp_path / "whole").rows()
    assert [r["epoch"] for r in rows] == [1, 2, 3]
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for key in row.keys() - {"seconds"}:
            assert row[key] == pytest.approx(other[key], rel=1e-12), key


def test_a_look_every_other_epoch_and_at_the_last(root: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(validate_every=2)
    folder = RunFolder.create(tmp_path / "run", recipe)
    Trainer(recipe, root).train(folder)
    assert ["accuracy" in row for row in folder.rows()] == [False, True, True]


def test_precise_statistics_are_the_mean_over_batches(root: str) -> None:
    """With precise_bn = 2: mean and unbiased variance of the last two batches, averaged, of the final weights."""
    trainer = Trainer(tiny_recipe(precise_bn=2), root)
    trainer._take_statistics_anew()
    results = []
    for step in (trainer.total_steps - 2, trainer.total_steps - 1):
        images = trainer.batches.get(step)[1]
        x = trainer.model.layers[1](trainer.model.layers[0](images))  # type: ignore[index, operator]
        results.append(torch.var_mean(x, dim=(0, 2, 3)))
    norm = trainer.model.layers[2]  # type: ignore[index]
    torch.testing.assert_close(norm.running_mean, (results[0][1] + results[1][1]) / 2)
    torch.testing.assert_close(norm.running_var, (results[0][0] + results[1][0]) / 2)


def test_the_log_has_what_it_promises(root: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(optimizer={"lr": 0.01}, radius={"ramp_epochs": 1})
    folder = RunFolder.create(tmp_path / "run", recipe)
    Trainer(recipe, root).train(folder)
    rows = folder.rows()
    keys = (
        "epoch lr eps_t loss natural_loss robust_loss train_accuracy mean_radius evaluations accuracy acr acr_percent"
    )
    for row in rows:
        assert set(keys.split()) | {"certified_0.1", "certified_0.3", "certified_0.4", "seconds"} == set(row)
    # four steps an epoch; the last step of the ramp's epoch is at s = 3/4
    assert [row["eps_t"] for row in rows] == pytest.approx([0.0, 0.1 * (16 * 0.75 - 3) / 13, 0.1])
    assert rows[0]["mean_radius"] == 0
    assert 0 < rows[-1]["mean_radius"] <= 0.1
    assert 0 < rows[-1]["evaluations"] <= 2
    assert rows[-1]["loss"] == pytest.approx(
        recipe.kappa * rows[-1]["natural_loss"] + (1 - recipe.kappa) * rows[-1]["robust_loss"], rel=1e-5
    )


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    recipe = tiny_recipe()
    trainer, folder = Trainer(recipe, root), RunFolder.create(tmp_path / "run", recipe)
    good = objectives.OBJECTIVES["acert"]

    def bad(batch: Any) -> Any:
        loss = good(batch)
        if trainer.step < 6:
            return loss
        zero = (batch.network.head.weight * 0).sum()
        poison = loss.total * torch.nan if where == "loss" else loss.total + zero.sqrt()  # gradient of sqrt at 0
        return dataclasses.replace(loss, total=poison)

    monkeypatch.setattr(trainer.gradients.step_loss, "objective", bad)
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
    with pytest.raises(RunError, match=r"not finite at step 6, epoch 2"):
        trainer.train(folder, save_minutes=0)
    state = folder.load()
    assert state is not None
    assert state["step"] == 6
    assert all(torch.isfinite(v).all() for v in state["model"].values())


@pytest.fixture
def small_disk() -> Iterator[Any]:
    """Writes of more than some bytes fail, as on a full disk; Python ignores SIGXFSZ and gets an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_with_the_last_good_state(root: str, tmp_path: Path, small_disk: Any) -> None:
    recipe = tiny_recipe()
    trainer, folder = Trainer(recipe, root), RunFolder.create(tmp_path / "run", recipe)
    assert trainer.train(folder, max_minutes=0) == "time"
    before = (folder.path / "last.pt").read_bytes()
    small_disk(len(before) // 2)
    with pytest.raises(RunError, match=r"last\.pt cannot be written .*--resume"):
        trainer.train(folder, max_minutes=0)
    assert (folder.path / "last.pt").read_bytes() == before
    assert not list(folder.path.glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save(root: str, tmp_path: Path, number: signal.Signals) -> None:
    recipe = tiny_recipe()
    trainer, folder = Trainer(recipe, root), RunFolder.create(tmp_path / "run", recipe)
    before = signal.getsignal(number)

    def interrupt(trainer: Trainer) -> None:
        if trainer.step == 2:
            os.kill(os.getpid(), number)

    assert trainer.train(folder, on_step=interrupt) == "interrupted"
    state = folder.load()
    assert state is not None
    assert state["step"] == 3
    assert signal.getsignal(number) == before


def test_the_step_never_waits_for_a_device(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No operation whose result's value or size the host must know, once compaction is off as it is on CUDA."""
    original = objectives.adaptive_radius
    monkeypatch.setattr(objectives, "adaptive_radius", lambda *a, **k: original(*a, **k, compact=False))
    waits = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}
    seen: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    trainer = Trainer(tiny_recipe(radius={"first_epochs": 0.25}, optimizer={"name": "sgd"}), root)
    trainer.train_step()
    for _ in range(3):  # SGD: Adam keeps its step counts on the CPU, where reading them costs nothing
        trainer.batches.get(trainer.step)
        with Watch():
            trainer.train_step()
    assert "convolution" in " ".join(seen)
    assert not seen & waits


def test_initialisation_follows_the_seed_alone() -> None:
    torch.manual_seed(1)
    a = build_model(tiny_recipe()).state_dict()
    torch.manual_seed(2)
    b = build_model(tiny_recipe()).state_dict()
    assert same(a, b)
    assert not same(a, build_model(tiny_recipe(seed=1)).state_dict())
    assert not same(a, build_model(tiny_recipe(initialization="torch")).state_dict())
