"""Kernel sizes of the plain CNN: the CNN-5 of the literature, sizes as torch computes them, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from acert_zoo.errors import InvalidInputError
from acert_zoo.network import architectures


def build(**changes: Any) -> nn.Module:
    shape: dict[str, Any] = {"input_shape": (3, 32, 32), "num_classes": 10, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return architectures.build("cnn", **(shape | {"convs": [[4, 1], [6, 2, 4]], "hidden": 7} | changes))


def test_cnn5() -> None:
    """conv 3x3 64, conv 4x4/s2 64, conv 4x4/s2 128, fc: 8,192 features reach the hidden layer."""
    model = build(convs=[[64, 1], [64, 2, 4], [128, 2, 4]], hidden=512)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs] == [(64, 3, 1), (64, 4, 2), (128, 4, 2)]
    assert next(m for m in model.modules() if isinstance(m, nn.Linear)).in_features == 8192
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("conv", [[4, 1, 1], [4, 2, 2], [4, 3], [4, 2, 5], [4, 1, 7], [4, 4, 4]])
@pytest.mark.parametrize("size", [(9, 14), (32, 32)])
def test_the_hidden_layer_takes_what_the_convolutions_give(conv: list[int], size: tuple[int, int]) -> None:
    assert build(input_shape=(3, *size), convs=[conv])(torch.rand(1, 3, *size)).shape == (1, 10)


@pytest.mark.parametrize("conv", [[4], [4, 1, 3, 1], [4, 1, 0], [4, 1, 3.0]])
def test_refused(conv: list[int]) -> None:
    with pytest.raises(InvalidInputError, match=r"\[width, stride, kernel\]"):
        build(convs=[conv])


def test_a_kernel_that_does_not_fit() -> None:
    with pytest.raises(InvalidInputError, match="a 2x2 convolution does not fit its 1x1 input"):
        build(input_shape=(3, 1, 1), convs=[[4, 1, 2]])
