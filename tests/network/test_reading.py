"""Reading a model: wrappers, constants and shapes; what is no classifier; a network held against its module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Normalize
from acert_zoo.network.reading import read
from acert_zoo.network.tracing import trace
from tests.support.models import small_model
from tests.support.modules import SHAPE, Code, build, conv, head, images, prepare


def test_zoo_models_and_plain_sequences_need_no_shape():
    model = small_model()
    assert len(trace(model).steps) == len(trace(model.classifier).steps)
    assert trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))).num_classes == 2
    network = trace(nn.DataParallel(model.classifier))
    assert torch.equal(network(images()), model.classifier(images()))
    assert isinstance(network.steps[0], Normalize)


def test_mean_and_std_stand_before_the_model():
    model = build("residual")
    network = prepare(model, SHAPE, mean=[0.1, 0.2, 0.3], std=0.5)
    expected = model((images() - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.5)
    assert torch.allclose(network(images()), expected, atol=1e-5)
    result = acert_zoo.certify(model, images(), mean=[0.1, 0.2, 0.3], std=[0.5] * 3)
    assert torch.equal(result.prediction, expected.argmax(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.5] * 3}, "both mean and std"),
        ({"mean": [0.5] * 2, "std": [1.0] * 3}, "mean must be 3"),
        ({"mean": [0.5] * 3, "std": [1.0, 0.0, 1.0]}, "std must be 3 finite positive"),
        ({"mean": [float("nan")] * 3, "std": [1.0] * 3}, "mean must be 3 finite"),
        ({"input_shape": (1, 8, 8)}, "does not take images of shape"),
        ({"input_shape": (3, 9, 8)}, "does not take images of shape"),
        ({"input_shape": (3, 8)}, "three positive integers"),
        ({"input_shape": (3, 8, -8)}, "three positive integers"),
    ],
)
def test_wrong_shapes_and_constants(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        prepare(build("residual"), **{"input_shape": SHAPE, **arguments})


def test_train_mode_is_refused():
    with pytest.raises(UnsoundSettingError, match="train mode"):
        prepare(copy.deepcopy(build("residual")).train(), SHAPE)
    partly = copy.deepcopy(build("batchnorm"))
    partly.norm.train()
    with pytest.raises(UnsoundSettingError, match="norm is in train mode"):
        prepare(partly, SHAPE)


class Gate(nn.Module):
    """A bias that depends on what the trace does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.calls = head(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(x.flatten(1)) + self.calls


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Gate(), "change between calls"),
        (
            Code(lambda m, x: m.head((x - x.mean(0, keepdim=True)).flatten(1)), head=head()),
            "batch axis must stay first",
        ),
        (Code(lambda m, x: m.conv(x), conv=conv()), r"logits of shape \[8, K"),
        (Code(lambda m, x: (m.head(x.flatten(1)), x), head=head()), "it returned tuple"),
        (Code(lambda m, x: m.head(x.flatten(1)) / 0, head=head()), "not finite"),
        (nn.Sequential(nn.Flatten(), head().half()), "float32 or all float64"),
        ("a string", "must be a torch.nn.Module"),
    ],
    ids=["state", "batch", "no logits", "tuple", "infinite", "half", "no module"],
)
def test_models_that_are_no_classifiers(model, message):
    with pytest.raises((InvalidInputError, UnsupportedLayerError), match=message):
        prepare(model.eval() if isinstance(model, nn.Module) else model, SHAPE)


def test_a_trace_that_differs_from_the_model_is_caught():
    class Sly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head()

        def forward(self, x: Tensor) -> Tensor:
            extra = 1e-3 if type(x) is Tensor else 0.0  # a tracer passes tensors of its own
            return self.head(x.flatten(1) * (1 + extra))

    with pytest.raises(InvalidInputError, match="differs from the model"):
        prepare(Sly().eval(), SHAPE)


def test_a_shape_is_asked_for_where_it_is_needed():
    with pytest.raises(InvalidInputError, match="give input_shape"):
        trace(build("view with size"))
    with pytest.raises(InvalidInputError, match="does not take images of shape"):
        read(build("residual"), (1, 8, 8))
    with pytest.raises(InvalidInputError, match="does not take a value of shape"):
        trace(nn.Sequential(conv(), nn.Flatten(), head()), (1, 8, 8))


def test_a_network_that_is_passed_on_is_taken_as_it_is():
    from acert_zoo.network.tracing import NetworkModule

    network = trace(small_model()).detach()
    module = NetworkModule(network, SHAPE)
    assert isinstance(trace(module), Network)
    assert torch.equal(prepare(module, SHAPE)(images()), network(images()))
    assert architectures.ARCHITECTURES.keys() >= {"cnn", "cnn7"}
