"""Other people's modules as networks: every kind of layer, code in `forward`, refusals that name what is wrong."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acert_zoo
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network import architectures
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Add, AvgPool, Conv, Linear, Normalize
from acert_zoo.network.reading import read
from acert_zoo.network.tracing import trace
from tests.support.models import small_model
from tests.support.modules import MODELS, SHAPE, Code, build, built, conv, head, images, prepare


def test_named_arguments_and_every_dropout():
    model = Code(
        lambda m, x: m.head(F.dropout2d(F.relu(input=m.drop(m.conv(input=x))), training=m.training).flatten(1)),
        conv=conv(), drop=nn.Sequential(nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()), head=head(),
    ).eval()  # fmt: skip
    assert [type(s).__name__ for s in prepare(model, SHAPE).steps] == ["Conv", "ReLU", "Flatten", "Linear"]


@pytest.mark.parametrize("name", MODELS)
def test_code_becomes_the_same_function(name):
    model, network = build(name), built(name)
    with torch.no_grad():
        assert torch.allclose(network(images()), model(images()), rtol=1e-5, atol=1e-5)
    folded = network.fold_batchnorm()
    assert torch.allclose(folded(images()), network(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_traced_network_has_bounds(name):
    model, network = build(name), built(name)
    labels = network(images()).argmax(1)
    rigorous = RigorousNetwork(network).margins(images(), labels, 0.01)
    assert torch.allclose(rigorous.float(), robust_margin(network, images(), labels, 0.01), rtol=1e-3, atol=1e-4)
    moved = (images() + 0.01 * torch.sign(torch.randn(images().shape))).clamp(0, 1)
    with torch.no_grad():
        logits = model(moved)
    others = logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)
    assert bool((rigorous <= logits.gather(1, labels.unsqueeze(1)).squeeze(1) - others + 1e-4).all())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, [2, 1, 0, -1]],
        lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
        lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
    ],
    ids=["channels", "reflect", "replicate"],
)
def test_constant_indices(function):
    inputs = function(images()).flatten(1).shape[1]
    model = Code(lambda m, x: m.head(function(x).flatten(1)), head=head(inputs)).eval()
    with torch.no_grad():
        assert torch.allclose(prepare(model, SHAPE)(images()), model(images()), atol=1e-5)


def test_a_scripted_module_is_refused_with_what_to_do():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.jit.script(nn.Sequential(nn.Flatten(), head()))
    with pytest.raises(UnsupportedLayerError, match="the module that it was made from"):
        acert_zoo.certify(model.eval(), images())


def test_constants_that_are_not_finite_are_named():
    model = Code(lambda m, x: torch.maximum(m.head(x.flatten(1)), torch.tensor(-torch.inf)), head=head())
    with pytest.raises(UnsupportedLayerError, match=r"maximum.*not finite"):
        trace(model.eval(), SHAPE)


def test_a_shift_and_a_scaling_become_one_normalize_step():
    model = Code(
        lambda m, x: m.head(((x - m.offset) / torch.tensor([0.5, 2.0, 1.0]).view(1, 3, 1, 1)).flatten(1)), head=head()
    )
    steps = prepare(model.eval(), SHAPE).steps
    assert [type(s).__name__ for s in steps] == ["Normalize", "Flatten", "Linear"]
    assert torch.equal(steps[0].mean, torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(steps[0].std, torch.tensor([0.5, 2.0, 1.0]))


def test_the_parameters_of_a_traced_network_are_the_models():
    model = build("residual")
    network = trace(model, SHAPE)
    convolution = next(s for s in network.steps if isinstance(s, Conv))
    assert convolution.weight is model.conv.weight
    assert any(isinstance(s, Add) for s in network.steps)
    robust_margin(network, images(), torch.zeros(3, dtype=torch.int64), 0.01).sum().backward()
    assert model.conv.weight.grad.abs().sum() > 0


def test_zoo_models_and_plain_sequences_need_no_shape():
    model = small_model()
    assert len(trace(model).steps) == len(trace(model.classifier).steps)
    assert trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))).num_classes == 2
    network = trace(nn.DataParallel(model.classifier))
    assert torch.equal(network(images()), model.classifier(images()))
    assert isinstance(network.steps[0], Normalize)


def test_a_classifier_attribute_of_somebody_elses_module_is_no_wrapper():
    """Many models call their head `classifier` or their body `layers`; only this package's wrapper is opened."""
    model = Code(lambda m, x: m.classifier(m.layers(x).flatten(1)), layers=conv(), classifier=head()).eval()
    network = prepare(model, SHAPE)
    assert [type(s).__name__ for s in network.steps] == ["Conv", "Flatten", "Linear"]


def test_a_subclass_with_another_forward_is_not_taken_for_its_base():
    class Twice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network = prepare(nn.Sequential(nn.Flatten(), Twice(192, 4)).eval(), SHAPE)
    assert sum(isinstance(s, Linear) for s in network.steps) == 2  # x W, then times 2


def test_torchvision_resnet():
    models = pytest.importorskip("torchvision").models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = prepare(models.resnet18(num_classes=5).eval(), (3, 32, 32), mean=[0.5] * 3, std=[0.25] * 3)
    assert sum(isinstance(s, Add) for s in network.steps) == 8
    assert isinstance(network.steps[0], Normalize)


# --- normalisation and checks ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 2)),
            r"layer '2' \(aten.gelu.default in GELU\)",
        ),
        (Code(lambda m, x: m.head(torch.exp(x).flatten(1)), head=head()), "exp"),
        (Code(lambda m, x: m.head((x * x).flatten(1)), head=head()), "product of two values"),
        (Code(lambda m, x: m.head(x.flatten(1)).softmax(1), head=head()), "softmax"),
        (Code(lambda m, x: m.head((x + torch.rand(3, 8, 8).round()).flatten(1)), head=head()), "rand.*random"),
        (Code(lambda m, x: m.head(x.flatten(1)) if x.sum() > 0 else x, head=head()), "must not branch"),
        (Code(lambda m, x: m.head(F.adaptive_avg_pool2d(x, 3).flatten(1)), head=head(27)), "unequal size"),
        (Code(lambda m, x: m.head(F.max_pool2d(x, 3, 2, ceil_mode=True).flatten(1)), head=head(48)), "ceil_mode"),
        (nn.Sequential(conv(padding_mode="circular"), nn.Flatten(), head()), "layer '0' .*Conv2d"),
        (Code(lambda m, x: m.head(x.reshape(x.shape[0] * 3, 64)), head=head(64)), "batch axis must stay first"),
    ],
    ids=[
        "module",
        "function",
        "product",
        "softmax",
        "random",
        "branch",
        "adaptive",
        "ceil",
        "circular",
        "batch",
    ],
)
def test_what_no_bound_covers_is_named(model, message):
    with pytest.raises(UnsupportedLayerError, match=message):
        trace(model.eval(), SHAPE)


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


def test_average_pooling_windows():
    network = built("adaptive pooling to 1")
    assert next(s for s in network.steps if isinstance(s, AvgPool)).kernel_size == (8, 8)
