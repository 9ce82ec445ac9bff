"""Losses against an independent slow implementation, gradients against finite differences, acert against ibp."""

from __future__ import annotations

import copy
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from acert_zoo.bounds.ibp import input_box, robust_margin
from acert_zoo.errors import InvalidInputError, UnknownNameError
from acert_zoo.network.tracing import trace
from tests.support.slow_loss import cross_entropy, slow_bounds, slow_penalty
from tests.support.training import tiny_batch, tiny_model, tiny_recipe
from training.method import objectives
from training.method.adaptive_radius import AdaptiveRadius, adaptive_radius
from training.method.loss import CLAMP, ibp_margins
from training.method.objectives import OBJECTIVES, find_objective
from training.method.regularizers import relu_balance, tightness
from training.run.gradients import StepLoss


def _fixed(radius: Tensor) -> Any:
    return lambda *a, **k: AdaptiveRadius(radius, torch.full_like(radius, torch.nan), 0)


@pytest.mark.parametrize("phase", ["before", "ramp", "after"])
def test_the_acert_loss_against_a_slow_implementation(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    eps_t = {"before": 0.0, "ramp": 0.02, "after": 0.1}[phase]
    recipe = tiny_recipe(kappa=0.3)  # eps_max 0.1
    batch = tiny_batch(
        trace(model), eps_t=eps_t, recipe=recipe, before_ramp=phase == "before", ramping=phase != "after"
    )
    radius = torch.tensor([0.0, 0.01, 0.02, 0.0, 0.005, 0.02], dtype=torch.float64) * (eps_t > 0)
    monkeypatch.setattr(objectives, "adaptive_radius", _fixed(radius))
    loss = objectives.acert(batch)
    eps = [max(e, CLAMP) if phase != "after" else e for e in radius.tolist()]
    margins, (logits, normalized, *boxes) = slow_bounds(model, batch.images, batch.labels, eps)
    natural, robust = cross_entropy(logits, batch.labels), cross_entropy(-margins, batch.labels)
    penalty = slow_penalty(normalized, boxes)
    expected = {
        "before": natural + penalty,
        "ramp": 0.3 * natural + 0.7 * robust + (1 - 0.02 / 0.1) * penalty,
        "after": 0.3 * natural + 0.7 * robust,
    }[phase]
    assert penalty > 0.01  # the regularisers have something to say
    assert loss.natural.item() == pytest.approx(natural, rel=1e-9)
    assert loss.robust.item() == pytest.approx(robust, rel=1e-9)
    assert loss.total.item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(loss.radius, radius)


@pytest.mark.parametrize("ramping", [True, False])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_gradients_against_finite_differences(name: str, ramping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter's directional derivative in float64; the adaptive radius and the attack's point held constant."""
    model = tiny_model(3)
    recipe = tiny_recipe(
        kappa=0.25, objective=name, crown_ibp={"start": 0.7, "end": 0.7}, regularizers={"tolerance": 0.9}
    )
    batch = tiny_batch(trace(model), eps_t=0.03 if ramping else 0.1, recipe=recipe, ramping=ramping)
    radius = torch.tensor([0.0, 0.01, 0.03, 0.004, 0.02, 0.03], dtype=torch.float64)
    monkeypatch.setattr(objectives, "adaptive_radius", _fixed(radius))
    center = (batch.images + 0.01).clamp(max=1)
    monkeypatch.setattr(objectives.small_boxes, "attack", lambda *a: center)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(OBJECTIVES[name](batch).total, parameters)
    g = torch.Generator().manual_seed(11)
    for k, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        direction = torch.randn(parameter.shape, generator=g, dtype=torch.float64)
        values = []
        h = 1e-6
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * h * direction)
            fresh = dataclasses.replace(batch, network=trace(model))
            values.append(OBJECTIVES[name](fresh).total.item())
            with torch.no_grad():
                parameter.sub_(sign * h * direction)
        numeric = (values[0] - values[1]) / (2 * h)
        assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=2e-5, abs=2e-7), k


def test_acert_at_a_fixed_radius_is_ibp_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        objectives, "adaptive_radius", lambda *a, **k: AdaptiveRadius(torch.full_like(a[3], a[4]), a[3] * torch.nan, 0)
    )
    for dtype in (torch.float32, torch.float64):
        for ramping, eps_t in ((True, 0.0), (True, 1e-7), (True, 0.05), (False, 0.1)):
            results = []
            for name in ("acert", "ibp"):
                model = tiny_model(dtype=dtype)
                batch = tiny_batch(trace(model), eps_t=eps_t, ramping=ramping, before_ramp=eps_t == 0)
                loss = OBJECTIVES[name](batch)
                loss.total.backward()
                results.append([loss.total.detach(), loss.radius, *(p.grad for p in model.parameters())])
            assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_acert_takes_each_samples_own_radius_and_no_gradient_from_it() -> None:
    model = tiny_model()
    batch = tiny_batch(trace(model), recipe=tiny_recipe(kappa=0.0, radius={"evaluations": 30, "tolerance": 0.0}))
    batch = dataclasses.replace(batch, labels=trace(copy.deepcopy(model))(batch.images).argmax(1))
    loss = objectives.acert(batch)
    clean = batch.clean_pass()
    network = batch.network.fold_batchnorm(clean.statistics).detach()
    right = clean.logits.argmax(1) == batch.labels
    assert right.any()
    assert torch.equal(loss.radius > 0, right)
    assert not loss.radius.requires_grad
    inside = right & (loss.radius < batch.eps_t)
    margin = robust_margin(network, batch.images, batch.labels, loss.radius)
    torch.testing.assert_close(margin[inside], torch.zeros_like(margin[inside]), rtol=0, atol=1e-4)
    assert (margin[right & ~inside] >= 0).all()


def test_acert_with_a_smallest_radius(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: a floor of 0.01 lifts 0 and 0.004 alone; in a ramp at 0.006 it is 0.006; a floor of eps_max is IBP."""
    found = torch.tensor([0.0, 0.01, 0.02, 0.004, 0.05, 0.006], dtype=torch.float64)
    lifted = {
        ("0.01", 0.1): [0.01, 0.01, 0.02, 0.01, 0.05, 0.01],
        ("0.01", 0.006): [0.006, 0.01, 0.02, 0.006, 0.05, 0.006],
        ("0", 0.1): found.tolist(),
    }
    monkeypatch.setattr(objectives, "adaptive_radius", _fixed(found))
    for (smallest, eps_t), expected in lifted.items():
        recipe = tiny_recipe(kappa=0.25, radius={"eps_min": smallest})
        batch = tiny_batch(trace(tiny_model()), eps_t=eps_t, ramping=False, recipe=recipe)
        loss = objectives.acert(batch)
        assert loss.radius.tolist() == expected
        monkeypatch.setattr(objectives, "adaptive_radius", _fixed(torch.tensor(expected, dtype=torch.float64)))
        plain = dataclasses.replace(batch, network=trace(tiny_model()), recipe=tiny_recipe(kappa=0.25))
        assert torch.equal(loss.total, objectives.acert(plain).total)  # it is the loss at the lifted radii
        monkeypatch.setattr(objectives, "adaptive_radius", _fixed(found))
    monkeypatch.undo()
    for eps_t in (0.03, 0.1):
        recipe = tiny_recipe(kappa=0.25, radius={"eps_min": "0.1"})  # eps_max
        totals = [
            OBJECTIVES[name](tiny_batch(trace(tiny_model()), eps_t=eps_t, ramping=eps_t < 0.1, recipe=recipe)).total
            for name in ("acert", "ibp")
        ]
        assert torch.equal(*totals)


def test_kappa_one_is_standard_training_after_the_ramp() -> None:
    results = []
    for name in ("acert", "ibp", "standard"):
        model = tiny_model()
        batch = tiny_batch(trace(model), eps_t=0.1, ramping=False, recipe=tiny_recipe(kappa=1.0))
        loss = OBJECTIVES[name](batch)
        loss.total.backward()
        results.append([p.grad for p in model.parameters()])
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-9, atol=1e-12)


def test_label_smoothing_of_standard_training() -> None:
    batch = tiny_batch(recipe=tiny_recipe(label_smoothing=0.4))
    logits = batch.clean_pass().logits.detach().log_softmax(1)
    expected = -(0.6 * logits.gather(1, batch.labels.unsqueeze(1)).mean() + 0.4 * logits.mean())
    assert OBJECTIVES["standard"](batch).total.item() == pytest.approx(expected.item(), rel=1e-9)


def test_regularisers_are_of_the_normalised_input_and_all_relus() -> None:
    batch = tiny_batch()
    clean = batch.clean_pass()
    network = batch.network.fold_batchnorm(clean.statistics)
    box, preactivations = input_box(batch.images, torch.full((6,), 0.02, dtype=torch.float64)), []
    ibp_margins(network, box, batch.labels, preactivations)
    assert len(preactivations) == 3  # two convolutions and the hidden layer
    first = network.steps[0]
    penalty = 0.5 * tightness(type(box)(first(box.lower), first(box.upper)), preactivations)
    penalty = penalty + 0.5 * relu_balance(preactivations)
    loss = objectives.ibp(batch)
    expected = 0.25 * loss.natural + 0.75 * loss.robust + 0.8 * penalty
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_adaptive_radius_is_the_one_the_objective_uses() -> None:
    assert objectives.adaptive_radius is adaptive_radius


def test_the_documented_example_of_a_new_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(objectives.__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr(objectives, "OBJECTIVES", dict(OBJECTIVES))
    exec(code, {})
    assert objectives.OBJECTIVES.keys() - OBJECTIVES.keys() == {"halfway"}
    model = tiny_model()
    batch = tiny_batch(trace(model), recipe=tiny_recipe(objective="halfway"))
    loss = objectives.OBJECTIVES["halfway"](batch)
    assert bool(((loss.radius >= 0.01) & (loss.radius <= 0.02)).all())  # eps_t = 0.02
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_objective_of_ones_own_is_found_by_module_and_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses.py").write_text(
        "from training.method.objectives import ibp\n\n\ndef half(batch):\n    return ibp(batch)\n\n\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    objective = find_objective("my_losses:half")
    batch = tiny_batch(recipe=tiny_recipe(objective="my_losses:half"))
    assert torch.equal(objective(batch).total, OBJECTIVES["ibp"](batch).total)
    for name, message in (
        ("my_losses:quarter", "has no attribute 'quarter'"),
        ("no_such_losses:half", "No module named 'no_such_losses'"),
        ("my_losses:number", "3; expected a function from a Batch to a Loss"),
        (":half", "Empty module name"),
    ):
        with pytest.raises(InvalidInputError, match=f"objective '{name}'.*{message}"):
            find_objective(name)
    with pytest.raises(UnknownNameError, match="did you mean sabr"):
        find_objective("saber")


def test_what_an_objective_of_ones_own_gives_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_sums.py").write_text("def wrong(batch):\n    return batch.images.sum()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    recipe = tiny_recipe(objective="my_sums:wrong")
    with pytest.raises(InvalidInputError, match="'my_sums:wrong' gave Tensor; expected a Loss"):
        StepLoss(tiny_model(), recipe)(tiny_batch(recipe=recipe))
