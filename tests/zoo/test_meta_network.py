"""Architectures without weights: what is counted of them."""

from __future__ import annotations

import pytest

import acert_zoo
from acert_zoo.zoo.meta_network import multiply_adds
from acert_zoo.zoo.model_info import ModelInfo


def info(**arguments) -> ModelInfo:
    shape = {"input_shape": [1, 8, 8], "num_classes": 3, "mean": [0.0], "std": [1.0]}
    return ModelInfo(name="it", arch="cnn", arch_kwargs={**shape, **arguments})


def test_multiply_adds_by_hand() -> None:
    # conv 1 -> 4, 3x3, stride 2: 16 places of 4 x 9; hidden: 64 x 5; head: 5 x 3
    assert multiply_adds(info(convs=[[4, 2]], hidden=5)) == 16 * 4 * 9 + 64 * 5 + 5 * 3
    # a second one, 4 -> 6, 4x4, stride 1: as many places as its output has
    more = multiply_adds(info(convs=[[4, 2], [6, 1]], hidden=5))
    assert more == 16 * 4 * 9 + 16 * 6 * 4 * 9 + 16 * 6 * 5 + 5 * 3


def test_of_a_model_of_the_zoo() -> None:
    assert multiply_adds(acert_zoo.model_info("cifar10_kappa025")) == pytest.approx(7.2e6, rel=0.01)
