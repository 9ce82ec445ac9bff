"""A training step in bfloat16: close to the float32 step, with what has to stay float32 in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from acert_zoo.bounds.ibp import input_box, margin_bounds, propagate
from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model, tiny_recipe
from training.compute.precision import logits, lowered, products, relu_rule
from training.method.loss import Loss
from training.method.objectives import OBJECTIVES


def step(objective: str, ramping: bool, **changes: Any) -> tuple[Loss, torch.Tensor]:
    """The loss of a step and the gradient of all parameters, in one vector."""
    model = tiny_model(dtype=torch.float32)
    network = trace(model)
    batch = tiny_batch(network, recipe=tiny_recipe(kappa=0.25, objective=objective, **changes), eps_t=0.1)
    batch = dataclasses.replace(batch, ramping=ramping)
    loss = OBJECTIVES[objective](batch)
    loss.total.backward()
    return loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("objective", ["acert", "ibp", "sabr", "crown-ibp", "standard"])
@pytest.mark.parametrize("ramping", [True, False])
def test_the_step_of_every_objective_is_close_to_the_float32_one(objective: str, ramping: bool) -> None:
    exact, gradient = step(objective, ramping)
    rough, rough_gradient = step(objective, ramping, precision="bfloat16")
    assert rough.total.dtype == torch.float32
    torch.testing.assert_close(rough.total, exact.total, rtol=0.03, atol=0)
    assert not torch.equal(rough.total, exact.total)
    assert torch.nn.functional.cosine_similarity(rough_gradient, gradient, dim=0) > 0.98


def test_the_bound_passes_own_dtypes() -> None:
    network = lowered(trace(tiny_model(dtype=torch.float32)).fold_batchnorm().detach(), torch.bfloat16)
    assert network.head.weight.dtype == torch.float32
    images, labels = tiny_batch().images.float(), tiny_batch().labels
    boxes: list[Any] = []
    hidden = propagate(network, input_box(images, 0.05), boxes, relu=relu_rule(False))
    assert {b.center.dtype for b in boxes} == {torch.bfloat16}
    assert margin_bounds(network.head, hidden, labels).dtype == torch.float32
    assert logits(network, images).dtype == torch.float32


def test_bounds_in_bfloat16_are_those_of_float32_up_to_rounding() -> None:
    exact = trace(tiny_model(dtype=torch.float32)).fold_batchnorm().detach()
    images, labels = tiny_batch().images.float(), tiny_batch().labels
    for eps in (0.0, 0.001, 0.1):
        box = input_box(images, eps)
        want = margin_bounds(exact.head, propagate(exact, box), labels)
        rough = lowered(exact, torch.bfloat16)
        got = margin_bounds(rough.head, propagate(rough, box, relu=relu_rule(False)), labels)
        torch.testing.assert_close(got, want, rtol=0.03, atol=0.03 * float(want.abs().max()))


def test_tf32_is_a_way_of_a_gpu_to_multiply_within_a_step_alone() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = False  # as choose_device leaves them
        for precision, device in (("tf32", "cpu"), ("float32", "cuda"), ("bfloat16", "cuda")):
            with products(precision, torch.device(device)):
                assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
        with products("tf32", torch.device("cuda")):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (True, True)
        assert (matmul.allow_tf32, cudnn.allow_tf32) == (False, False)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    exact, rough = step("acert", True), step("acert", True, precision="tf32")  # on the CPU float32 itself
    assert torch.equal(exact[0].total, rough[0].total)
    assert torch.equal(exact[1], rough[1])
