"""The graph of steps: values by hand, folding of BatchNorm, copies, what a network must end in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Monotone,
    Permute,
    ReLU,
    Reshape,
    Selection,
)
from acert_zoo.network.tracing import trace


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def head(n: int, inputs: int = 0) -> Linear:
    return Linear(inputs=(inputs,), weight=torch.eye(n), bias=torch.zeros(n))


def test_values_are_numbered_from_the_input():
    """x -> relu(x) -> x + relu(x) -> head."""
    network = Network((ReLU(inputs=(0,)), Add(inputs=(0, 1)), head(2, 2)))
    values = network.run(tensor(-1, 3).view(1, 2))
    assert [v.flatten().tolist() for v in values] == [[-1, 3], [0, 3], [-1, 6], [-1, 6]]


def test_last_readers_and_relus_that_may_overwrite():
    """Of two ReLUs behind affine steps, the value of one is read again by the sum."""
    first, second = head(2), head(2, 2)
    network = Network((first, ReLU(inputs=(1,)), second, ReLU(inputs=(3,)), Add(inputs=(3, 4)), head(2, 5)))
    assert network.last_use == {0: 0, 1: 1, 2: 2, 3: 4, 4: 4, 5: 5}
    assert network.overwritable == {1}
    assert Network((ReLU(inputs=(0,)), head(2, 1))).overwritable == set()  # the input box is not ours to overwrite


def test_steps_that_rearrange():
    x = torch.arange(12.0).view(1, 3, 2, 2)
    assert Reshape(inputs=(0,), shape=(6, 2))(x).shape == (1, 6, 2)
    assert torch.equal(Permute(inputs=(0,), dims=(0, 2, 3, 1))(x), x.permute(0, 2, 3, 1))
    assert Concat(inputs=(0, 0), dim=1)(x, x).shape == (1, 6, 2, 2)
    for kind in (ReLU, Flatten, Reshape, Permute, Concat, MaxPool):
        assert issubclass(kind, Selection)
        assert issubclass(kind, Monotone)


def test_a_network_ends_in_a_linear_layer():
    with pytest.raises(UnsupportedLayerError, match="ends in ReLU"):
        Network((ReLU(inputs=(0,)),))
    with pytest.raises(UnsupportedLayerError, match="ends in nothing"):
        Network(())


def test_folding_by_hand():
    """BN with gamma 3, beta 1, mean 2, var 4 - epsilon: 3 (z - 2)/2 + 1 = 1.5 z - 2, after z = 2 x + 4: 3 x + 4."""
    one = tensor(1)
    layer = Linear(inputs=(0,), weight=tensor(2).view(1, 1), bias=tensor(4))
    norm = BatchNorm(inputs=(1,), gamma=3 * one, beta=one, mean=2 * one, var=tensor(3.5), epsilon=0.5)
    folded = Network((layer, norm, head(1, 2))).fold_batchnorm()
    assert [type(s) for s in folded.steps] == [Linear, Linear]
    assert folded.steps[0].weight.item() == pytest.approx(3)
    assert folded.steps[0].bias.item() == pytest.approx(4)


def test_folding_with_other_statistics():
    one = tensor(1)
    layer = Linear(inputs=(0,), weight=one.view(1, 1), bias=0 * one)
    norm = BatchNorm(inputs=(1,), gamma=one, beta=0 * one, mean=0 * one, var=one, epsilon=0.0)
    folded = Network((layer, norm, head(1, 2))).fold_batchnorm({1: (tensor(5), tensor(4))})
    assert folded(tensor(7).view(1, 1)).item() == pytest.approx(1)


def test_batchnorm_of_a_value_that_is_read_twice_is_not_folded():
    norm = {"gamma": tensor(2), "beta": tensor(0), "mean": tensor(0), "var": tensor(1), "epsilon": 0.0}
    layer = Linear(inputs=(0,), weight=tensor(1).view(1, 1), bias=tensor(0))
    network = Network((layer, BatchNorm(inputs=(1,), **norm), Add(inputs=(1, 2)), head(1, 3)))
    folded = network.fold_batchnorm()
    assert any(isinstance(s, BatchNorm) for s in folded.steps)
    x = tensor(5).view(1, 1)
    assert folded(x).item() == network(x).item() == 15


@given(st.integers(0, 2**32))
def test_folding_changes_nothing_but_rounding(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    norm = {"gamma": draw(4), "beta": draw(4), "mean": draw(4), "var": draw(4).abs() + 0.1, "epsilon": 1e-5}
    network = Network(
        (
            Conv(inputs=(0,), weight=draw(4, 2, 3, 3), bias=draw(4), padding=(1, 1)),
            BatchNorm(inputs=(1,), **norm),
            ReLU(inputs=(2,)),
            Flatten(inputs=(3,)),
            Linear(inputs=(4,), weight=draw(3, 36), bias=draw(3)),
        )
    )
    x = draw(2, 2, 3, 3)
    assert torch.allclose(network(x), network.fold_batchnorm()(x), rtol=1e-9, atol=1e-9)


def test_copies():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    live = trace(model)
    assert live.head.weight is model[1].weight
    assert not live.detach().head.weight.requires_grad
    double = live.to(torch.float64)
    assert double.head.weight.dtype == torch.float64
    assert torch.equal(double.head.weight.float(), model[1].weight)
    assert (live.num_classes, live.head.inner_length) == (2, 4)
