"""What a whole training step does, item by item, with numbers worked out in the test: schedules by the step, clipping,
L1, running statistics, the elided last layer, and ACERT at a fixed radius as IBP over several optimiser steps."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from acert_zoo.bounds.ibp import input_box, propagate
from acert_zoo.data import datasets
from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model, tiny_recipe, write_dataset, write_recipe
from training.method import objectives
from training.method.adaptive_radius import AdaptiveRadius
from training.method.loss import Batch, ibp_margins
from training.run.gradients import StepLoss
from training.run.loop import Trainer
from training.train import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


def test_radius_and_phase_of_every_step(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps an epoch: one first epoch, a ramp of 1.5 epochs (N = 6), then full radius (0.1)."""
    seen: list[tuple[float, bool, bool]] = []
    plain = objectives.OBJECTIVES["ibp"]

    def spy(batch: Batch) -> Any:
        seen.append((batch.eps_t, batch.before_ramp, batch.ramping))
        return plain(batch)

    monkeypatch.setitem(objectives.OBJECTIVES, "ibp", spy)
    trainer = Trainer(tiny_recipe(objective="ibp"), root)
    for _ in range(12):
        trainer.train_step()
    ramp = [0, 256 / 13 / 6**4, (16 / 3 - 3) / 13, 5 / 13, (32 / 3 - 3) / 13, (40 / 3 - 3) / 13]  # s = 0, 1/6 ... 5/6
    assert [eps for eps, _, _ in seen] == pytest.approx([0.0] * 4 + [0.1 * f for f in ramp] + [0.1] * 2)
    assert [before for _, before, _ in seen] == [True] * 4 + [False] * 8
    assert [ramping for _, _, ramping in seen] == [True] * 10 + [False] * 2


def test_one_cycle_is_stepped_with_every_batch(root: str) -> None:
    trainer = Trainer(tiny_recipe(optimizer={"lr": 1e-3, "warmup": 0.25}), root)  # 12 steps: up to step 2, down to 4
    rates, betas = [], []
    for _ in range(12):
        betas.append(trainer.optimizer.param_groups[0]["betas"])
        trainer.train_step()
        rates.append(trainer.learning_rate)
    low, high, end = 1e-3 / 25, 1e-3, 1e-3 / 25 / 100
    expected = [low, (low + high) / 2, high, (low + high) / 2, *(low + (end - low) * k / 7 for k in range(8))]
    assert rates == pytest.approx(expected)
    assert [b for b, _ in betas[:5]] == pytest.approx([0.95, 0.9, 0.85, 0.9, 0.95])
    assert {b for _, b in betas} == {0.999}


def test_gradients_are_clipped_by_their_global_norm(root: str) -> None:
    free, clipped = (Trainer(tiny_recipe(optimizer={"grad_clip": clip}), root) for clip in (0.0, 0.01))
    free.train_step()
    clipped.train_step()
    grads = [torch.cat([p.grad.flatten() for p in t.model.parameters()]) for t in (free, clipped)]  # type: ignore[union-attr]
    norm = math.sqrt(sum(v * v for v in grads[0].tolist()))
    assert norm > 0.1
    torch.testing.assert_close(grads[1], grads[0] * (0.01 / norm), rtol=1e-4, atol=1e-9)


def test_l1_is_of_convolution_and_linear_weights() -> None:
    model = tiny_model()
    batch = tiny_batch(trace(model), recipe=tiny_recipe(objective="ibp"))
    plain = StepLoss(model, batch.recipe)(batch).total.item()
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    weights = sum(abs(w) for m in layers for w in m.weight.flatten().tolist())
    assert len(layers) == 4
    total = StepLoss(model, tiny_recipe(objective="ibp", optimizer={"l1": 1e-2}))(batch).total.item()
    assert total - plain == pytest.approx(1e-2 * weights, rel=1e-9)


def test_running_statistics_move_once_a_step_by_the_clean_pass(root: str) -> None:
    """ACERT runs the network for the logits, the search and the bounds; the first BatchNorm sees the clean batch."""
    trainer = Trainer(tiny_recipe(kappa=0.0, radius={"first_epochs": 0, "ramp_epochs": 0}), root)
    normalize, convolution, norm = list(trainer.model.layers)[:3]  # type: ignore[arg-type]
    mean, var = torch.zeros(4), torch.ones(4)
    for step in range(3):
        with torch.no_grad():
            x = convolution(normalize(trainer.batches.get(step)[1]))
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        var = 0.9 * var + 0.1 * x.var((0, 2, 3), unbiased=True)
        assert trainer.train_step().radius.max() > 0
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-5)
    assert norm.num_batches_tracked == 3


def test_the_last_layer_is_elided() -> None:
    """min over the hidden box of (W_y - W_t) h + b_y - b_t, by its corners; bounding both logits loses against it."""
    network = trace(tiny_model().eval()).fold_batchnorm().detach()
    batch = tiny_batch(network)
    box = input_box(batch.images, 0.05)
    hidden = propagate(network, box)
    margins = ibp_margins(network, box, batch.labels, [])
    w, b = network.head.weight, network.head.bias
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * w.shape[1])  # [32, 5]
    for n, y in enumerate(batch.labels.tolist()):
        logits = (hidden.lower[n] + corners * (hidden.upper[n] - hidden.lower[n])) @ w.T + b  # affine: extreme there
        for t in range(len(w)):
            assert margins[n, t].item() == pytest.approx((logits[:, y] - logits[:, t]).min().item(), abs=1e-12)
            if t != y:
                assert margins[n, t] > logits[:, y].min() - logits[:, t].max()


def test_acert_at_a_fixed_radius_trains_the_weights_of_ibp(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, after every phase of a run."""
    fixed = lambda *a, **k: AdaptiveRadius(torch.full_like(a[3], a[4]), a[3] * torch.nan, 0)  # noqa: E731
    monkeypatch.setattr(objectives, "adaptive_radius", fixed)
    trainers = [Trainer(tiny_recipe(objective=name), root) for name in ("acert", "ibp")]
    for _ in range(12):
        for trainer in trainers:
            trainer.train_step()
    acert, ibp = (t.model.state_dict() for t in trainers)
    assert all(torch.equal(v, ibp[k]) for k, v in acert.items())


def test_training_never_opens_the_test_files(tmp_path: Path) -> None:
    """Every file that the command opens, seen by an audit hook, on a data root that has test files."""
    folder = write_dataset(tmp_path / "data") / "mnist"
    np.save(folder / "test_images.npy", np.load(folder / "train_images.npy")[:20])
    np.save(folder / "test_labels.npy", np.load(folder / "train_labels.npy")[:20])
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple) -> None:  # an audit hook cannot be taken out again
        if watching and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    recipe = write_recipe(tmp_path / "tiny.toml", epochs=1)
    options = ["--recipe", str(recipe), "--data-root", str(tmp_path / "data"), "--run", str(tmp_path / "run")]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 0, result.output
    assert str(folder / "train_images.npy") in opened
    assert not [name for name in opened if "test_" in Path(name).name]
    datasets.load_split("mnist", "test", str(tmp_path / "data"))
    watching = False
    assert str(folder / "test_images.npy") in opened  # the hook would have seen it
