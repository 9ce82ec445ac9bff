"""Muon: the orthogonal factor, the length of a step, Adam's rule beside it, and a state that resumes."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.support.training import tiny_model
from training.recipes.recipe import Optimizer
from training.run.muon import RELATIVE_STEP, Muon, orthogonalized
from training.run.optimization import build_optimizer


def test_a_diagonal_matrix_becomes_nearly_the_identity() -> None:
    """A direction 20 times smaller than the largest is as long as the others afterwards, up to the published 30 %."""
    out = orthogonalized(torch.diag(torch.tensor([4.0, 1.0, 0.2], dtype=torch.float64)))
    assert torch.equal(out, out.diag().diag())
    assert ((out.diag() > 0.65) & (out.diag() < 1.25)).all()


@pytest.mark.parametrize("shape", [(3, 7), (7, 3)])
def test_the_factor_keeps_the_singular_directions(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalized(matrix) @ v.T
    torch.testing.assert_close(inside, inside.diag().diag(), rtol=0, atol=1e-9)
    assert ((inside.diag() > 0.65) & (inside.diag() < 1.25)).all()


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e12])
def test_the_factor_does_not_depend_on_the_size_of_the_gradient(scale: float) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(4, 6)
    torch.testing.assert_close(orthogonalized(matrix * scale), orthogonalized(matrix), rtol=1e-4, atol=1e-5)


def test_a_step_is_relative_to_the_norm_of_the_weight_and_keeps_it() -> None:
    weight = torch.full((2, 1, 2, 2), 3.0, dtype=torch.float64).requires_grad_()
    before = weight.detach().clone()
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.01)
    torch.manual_seed(0)
    weight.grad = torch.randn_like(weight)
    update = orthogonalized(weight.grad.flatten(1)).reshape(weight.shape)  # of the first step: the momentum is 0
    optimizer.step()
    expected = before - update * (0.01 * RELATIVE_STEP * before.norm() / update.norm())
    torch.testing.assert_close(weight.detach(), expected * (before.norm() / expected.norm()))
    assert ((before - weight.detach()) * weight.grad).sum() > 0  # downhill


def test_many_steps_do_not_lengthen_a_weight() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3).requires_grad_()
    before = float(weight.detach().norm())
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=4e-3)
    for _ in range(300):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert float(weight.detach().norm()) == pytest.approx(before, rel=1e-4)


def test_a_weight_without_gradient_or_length_stays() -> None:
    weight, zero = torch.ones(2, 3).requires_grad_(), torch.zeros(2, 3).requires_grad_()
    optimizer = Muon([{"params": [weight, zero], "orthogonal": True}])
    weight.grad, zero.grad = torch.zeros(2, 3), torch.ones(2, 3)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 3))
    assert torch.equal(zero, torch.zeros(2, 3))


def test_the_other_groups_follow_adam() -> None:
    torch.manual_seed(0)
    mine, theirs = (torch.arange(4.0, dtype=torch.float64).requires_grad_() for _ in range(2))
    first = Muon([{"params": [mine], "weight_decay": 0.1}], lr=0.05)
    second = torch.optim.AdamW([theirs], lr=0.05, weight_decay=0.1)
    for _ in range(4):
        mine.grad = torch.randn(4, dtype=torch.float64)
        theirs.grad = mine.grad.clone()
        first.step()
        second.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


def test_orthogonal_steps_for_all_weights_but_the_heads() -> None:
    model = tiny_model()
    groups = build_optimizer(Optimizer(name="muon"), model).param_groups
    orthogonal = {id(p) for group in groups if group["orthogonal"] for p in group["params"]}
    weights = [name for name, p in model.named_parameters() if p.dim() > 1]
    assert [name for name, p in model.named_parameters() if id(p) in orthogonal] == weights[:-1]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    model = tiny_model()
    optimizer = build_optimizer(Optimizer(name="muon"), model)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()

    step(model, optimizer, 1)
    copied = copy.deepcopy(model)
    resumed = build_optimizer(Optimizer(name="muon"), copied)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer, 2)
    step(copied, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copied.parameters(), strict=True))
