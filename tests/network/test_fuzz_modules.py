"""A small sample of `benchmarks/fuzz_modules.py`, and that its checks find what they are there for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import acert_zoo
from acert_zoo.errors import UnsupportedLayerError
from benchmarks.fuzz_modules import check, compare_export, refute
from benchmarks.random_modules import SHAPES, random_module


@pytest.mark.parametrize("seed", range(100, 112))
def test_random_modules_get_no_false_certificate(seed):
    pytest.importorskip("onnxruntime")
    outcome = check(seed)
    assert outcome.faults == ()
    assert bool(outcome.refused) or 0 <= outcome.certified <= 3


def test_an_output_of_several_whose_batch_axis_is_gone_is_refused_by_name():
    """What two of the first 10,000 modules showed: an error that was not the package's own."""
    module, shape, _ = random_module(5625)
    with pytest.raises(UnsupportedLayerError, match=r"an output in AdaptiveMaxPool2d.*the batch axis must stay first"):
        acert_zoo.certify(module, torch.rand(1, *shape), None)


def test_modules_of_one_seed_are_equal_and_every_kind_occurs():
    first, shape, note = random_module(7)
    second, _, same = random_module(7)
    images = torch.rand(2, *shape)
    assert note == same
    assert torch.equal(first(images.clone()), second(images.clone()))
    notes = " ".join(random_module(seed)[2] for seed in range(300))
    for word in ("HOSTILE", "Conv2d", "hook", "parametrization", "mul_ on view", "cat", "ReLU", "MaxPool2d"):
        assert word in notes
    assert {random_module(seed)[1] for seed in range(40)} == set(SHAPES)


def test_a_false_certificate_and_a_wrong_class_are_found():
    """By hand: logits (x, 1 - x) of one pixel x = 0.75: class 0 holds within 0.25."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [-1.0]])), model[1].bias.copy_(torch.tensor([0.0, 1.0]))
    image, zero = torch.full((1, 1, 1, 1), 0.75), torch.zeros(1, dtype=torch.int64)

    def radius(value: float) -> torch.Tensor:
        return torch.tensor([value], dtype=torch.float64)

    assert refute(model, image, zero, radius(0.25), "certify") == []
    assert len(refute(model, image, zero, radius(0.27), "certify")) == 1
    assert len(refute(model, image, zero + 1, radius(0.1), "certify")) == 1
    assert refute(model, image, zero + 1, radius(0.0), "certify") == []


def test_an_export_that_differs_is_found(monkeypatch):
    pytest.importorskip("onnxruntime")
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), torch.rand(3, 1, 2, 2)
    assert compare_export(model, images, (1, 2, 2)) == []
    model[1].register_forward_hook(lambda module, inputs, output: output * torch.tensor([1.0, 1.0]))
    assert compare_export(model, images, (1, 2, 2)) == []
    other = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    from acert_zoo.network.onnx.files import export_onnx

    monkeypatch.setattr("benchmarks.fuzz_modules.export_onnx", lambda m, path, shape: export_onnx(other, path, shape))
    assert compare_export(model, images, (1, 2, 2)) != []
