"""Other people's modules as networks: every kind of layer, code in `forward`, refusals that name what is wrong.

Also tested here: network/torch_modules/aten_reader.py, network/torch_modules/aten_rules.py,
network/torch_modules/aten_operations.py, network/torch_modules/aten_rearrangements.py, network/building/composed.py,
network/building/operations.py, network/building/pooling.py, network/building/builder.py.
"""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acert_zoo
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.layers import Add, AvgPool, Conv, Linear, Normalize
from acert_zoo.network.tracing import trace
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
    for module in (model, nn.Sequential(model)):
        with pytest.raises(UnsupportedLayerError, match="the module that it was made from"):
            acert_zoo.certify(module.eval(), images())


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


def test_average_pooling_windows():
    network = built("adaptive pooling to 1")
    assert next(s for s in network.steps if isinstance(s, AvgPool)).kernel_size == (8, 8)
