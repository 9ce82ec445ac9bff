"""The residual architecture: what it is, that bounds see it, that BatchNorm folds, that absurd sizes are refused."""

from __future__ import annotations

import pytest
import torch

from acert_zoo import certify
from acert_zoo.bounds.ibp import input_box, propagate
from acert_zoo.errors import InvalidInputError
from acert_zoo.network import architectures
from acert_zoo.network.layers import Add, AvgPool, BatchNorm, Conv
from acert_zoo.network.tracing import trace
from training.run.deployment import fold

COMMON = {"input_shape": [3, 9, 9], "num_classes": 4, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def build(**changes):
    return architectures.build("resnet", **{**COMMON, "stem": 4, "blocks": [[6, 2], [6, 1]], **changes})


def images(n=5):
    return torch.rand(n, 3, 9, 9, generator=torch.Generator().manual_seed(0))


def test_shortcuts_are_projections_only_where_sizes_change():
    network = trace(build())
    kinds = [type(step) for step in network.steps]
    assert kinds.count(Add) == 2
    assert kinds.count(Conv) == 1 + 3 + 2  # stem; block with a projection; block with an identity
    pooling = next(step for step in network.steps if isinstance(step, AvgPool))
    assert pooling.kernel_size == (5, 5)  # 9 -> 5 by the stride


def test_the_traced_network_computes_the_same_logits():
    model = build(batchnorm=True, stem_stride=2).eval()
    assert torch.allclose(trace(model)(images()), model(images()), atol=1e-6)
    assert model(images()).shape == (5, 4)


def test_a_block_by_hand():
    block = architectures.Residual(1, 1, 1, batchnorm=False)
    with torch.no_grad():
        for convolution, centre, bias in ((block.main[0], 2.0, -1.0), (block.main[2], -1.0, 0.5)):
            convolution.weight.zero_()
            convolution.weight[0, 0, 1, 1] = centre
            convolution.bias.fill_(bias)
    x = torch.tensor([0.25, 1.0, 3.0]).view(3, 1, 1, 1)
    # relu(x - relu(2 x - 1) + 0.5)
    assert block(x).flatten().tolist() == [0.75, 0.5, 0.0]


def test_batchnorm_folds_completely():
    model, deployed = build(batchnorm=True), build()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    fold(model.eval(), deployed)
    assert not any(isinstance(step, BatchNorm) for step in trace(deployed).steps)
    assert torch.allclose(deployed(images()), model(images()), atol=1e-4)


def test_bounds_hold_and_certificates_exist():
    model = build().eval()
    network = trace(model).detach()
    box = input_box(images(), 0.05)
    hidden = propagate(network, box)
    for _ in range(20):
        point = torch.lerp(box.lower, box.upper, torch.rand(box.lower.shape))
        value = network.run(point)[network.head.inputs[0]]
        assert bool(((value >= hidden.lower - 1e-5) & (value <= hidden.upper + 1e-5)).all())
    assert bool((certify(model, images()).radius > 0).all())


@pytest.mark.parametrize(
    "changes",
    [
        {"stem": 0},
        {"stem": 10**9},
        {"blocks": []},
        {"blocks": [[6]]},
        {"blocks": [[6, 0]]},
        {"blocks": [[6, 1]] * 101},
        {"blocks": [[10**6, 1]]},
        {"blocks": 5},
        {"stem_stride": 0},
        {"stem_stride": 1.5},
        {"input_shape": [3, 10**6, 9]},
        {"mean": [0.5]},
        {"hidden": 5},
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(changes):
    with pytest.raises(InvalidInputError):
        build(**changes)
