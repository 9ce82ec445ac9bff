"""BatchNorm in training: logits, statistics, their gradients and the running statistics, as torch's layers do it.

Also tested here: training/method/batch_norm.py.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model
from training.compute import kernels
from training.method.batch_norm import Normalize, NormalizeReLU
from training.method.clean_pass import clean_pass, update_running_statistics


def test_statistics_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 7.0]]]], dtype=torch.float64)  # mean 4, biased variance 5
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    out, mean, var = Normalize.apply(x, one * 2, zero + 0.5, 0.0)
    assert (mean.item(), var.item()) == (4.0, 5.0)
    assert out.flatten().tolist() == pytest.approx([2 * d / 5**0.5 + 0.5 for d in (-3, -1, 1, 3)])


def test_as_torchs_layers_in_train_mode() -> None:
    model = tiny_model()
    reference = copy.deepcopy(model).train()
    images, labels = tiny_batch().images, tiny_batch().labels
    network = trace(model)
    result = clean_pass(network, images)
    logits = reference(images)
    torch.testing.assert_close(result.logits, logits, rtol=1e-12, atol=1e-12)
    nn.functional.cross_entropy(result.logits, labels).backward()
    nn.functional.cross_entropy(logits, labels).backward()
    for (name, mine), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12, msg=name)
    update_running_statistics(network, model, result)  # torch's layers did it in their forward pass
    for (name, mine), theirs in zip(model.named_buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12, msg=name)
    assert all(m.num_batches_tracked == 1 for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)))


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 3)])
def test_gradients_through_output_and_statistics(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    gamma, beta = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *a: Normalize.apply(*a, 1e-5), (x, gamma, beta))
    assert torch.autograd.gradcheck(lambda *a: NormalizeReLU.apply(*a, 1e-5, kernels.plain), (x, gamma, beta))


def test_the_bound_pass_at_radius_zero_meets_the_clean_logits() -> None:
    """Folding the batch's statistics gives the train-mode network, its gradient included."""
    model = tiny_model()
    images = tiny_batch().images
    network = trace(model)
    result = clean_pass(network, images)
    folded = network.fold_batchnorm(result.statistics)
    torch.testing.assert_close(folded(images), result.logits, rtol=1e-10, atol=1e-10)
    parameters = list(model.parameters())

    def gradient(logits: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(logits.square().sum(), parameters, retain_graph=True))

    torch.testing.assert_close(gradient(folded(images)), gradient(result.logits), rtol=1e-8, atol=1e-9)


def test_batchnorm_and_relu_as_one_pass() -> None:
    network = trace(tiny_model(dtype=torch.float32))
    images = tiny_batch().images.float()
    apart, fused = clean_pass(network, images), clean_pass(network, images, compile=True)
    torch.testing.assert_close(fused.logits, apart.logits)
    torch.testing.assert_close(fused.statistics, apart.statistics)


def test_lower_precision_keeps_statistics_and_logits_in_float32() -> None:
    network = trace(tiny_model(dtype=torch.float32))
    images = tiny_batch().images.float()
    exact, rough = clean_pass(network, images), clean_pass(network, images, torch.bfloat16)
    assert rough.logits.dtype == torch.float32
    assert all(t.dtype == torch.float32 for pair in rough.statistics.values() for t in pair)
    assert not torch.equal(rough.logits, exact.logits)
    torch.testing.assert_close(rough.logits, exact.logits, rtol=0.1, atol=0.1)
