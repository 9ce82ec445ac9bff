"""Modules that do more than their layers say: read as what they do, or refused; never certified as something else.

Every module here answers otherwise than a reader of its layers would think. Right values come from the module itself,
from a twin that says plainly what it does, or are worked out by hand.

Also tested here: network/agreement.py, network/torch_modules/known_layers.py, network/torch_modules/state_walk.py.
"""

from __future__ import annotations

import random
import types
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.nn.utils import prune

import acert_zoo
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.architectures import Residual
from acert_zoo.network.onnx.files import export_onnx
from acert_zoo.network.reading import read
from acert_zoo.network.torch_modules import known_layers
from tests.support.attack import lively_model, random_images

BLACK = torch.zeros(1, 1, 4, 4)


def chain(first: nn.Module, second: nn.Module, linear: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    """mean -> first -> minus 0.1 -> second -> logits (0, -10 v - 0.5): with ReLUs v = 0 at means below 0.1."""
    a, b, c = nn.Linear(16, 1), linear(1, 1), nn.Linear(1, 2)
    with torch.no_grad():
        a.weight.fill_(1 / 16), a.bias.zero_(), b.weight.fill_(1), b.bias.fill_(-0.1)
        c.weight.copy_(torch.tensor([[0.0], [-10.0]])), c.bias.copy_(torch.tensor([0.0, -0.5]))
    return nn.Sequential(nn.Flatten(), a, first, b, second, c).eval()


def test_one_activation_object_at_two_places():
    """By hand: without the second ReLU v = -0.1 at black, whose logits (0, 0.5) give class 1. The model answers 0."""
    activation = nn.ReLU()
    shared, twin = chain(activation, activation), chain(nn.ReLU(), nn.ReLU())
    assert shared(BLACK).tolist() == [[0.0, -0.5]]
    found, wanted = acert_zoo.certify(shared, BLACK), acert_zoo.certify(twin, BLACK)
    assert found.prediction.tolist() == [0]
    assert torch.equal(found.radius, wanted.radius)
    assert known_layers.is_known(shared)


def test_children_that_a_table_lists_otherwise_count():
    """nn.Sequential runs the values of `_modules`; a table of another type may give other values than items."""

    class Twofold(dict):
        def values(self):
            return [*super().values(), nn.Tanh(), nn.Linear(2, 2)]

    model = chain(nn.ReLU(), nn.ReLU())
    assert known_layers.is_known(model)
    vars(model)["_modules"] = Twofold(model._modules)
    assert not known_layers.is_known(model)


class ClampedCall(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x).clamp(min=0)


def hook(model: nn.Sequential) -> None:
    model[3].register_forward_hook(lambda module, inputs, output: output.clamp(min=0))


def hook_in_place(model: nn.Sequential) -> None:
    def clamp(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.clamp_(min=0)

    model[3].register_forward_hook(clamp)


def hook_with_kwargs(model: nn.Sequential) -> None:
    model[3].register_forward_hook(lambda module, inputs, kwargs, output: output.relu(), with_kwargs=True)


def pre_hook(model: nn.Sequential) -> None:
    model[5].register_forward_pre_hook(lambda module, inputs: (inputs[0].clamp(min=0),))


def forward(model: nn.Sequential) -> None:
    old = model[3].forward
    model[3].forward = lambda x: old(x).clamp(min=0)


def method(model: nn.Sequential) -> None:
    model[4].forward = types.MethodType(lambda self, x: F.relu(x), model[4])


def call_of_a_subclass(model: nn.Sequential) -> None:
    layer = ClampedCall(1, 1)
    layer.load_state_dict(model[3].state_dict())
    model[3] = layer


def iteration_of_a_subclass(model: nn.Sequential) -> None:
    class Twice(nn.Sequential):
        def __iter__(self):
            return iter([nn.ReLU(), *self._modules.values()])

    model[4] = Twice(nn.ReLU())


REPLACED = [
    hook,
    hook_in_place,
    hook_with_kwargs,
    pre_hook,
    forward,
    method,
    call_of_a_subclass,
    iteration_of_a_subclass,
]


@pytest.mark.parametrize("change", REPLACED)
def test_hooks_and_replaced_forwards_take_part(change):
    """Each makes of the chain with an Identity the chain with a ReLU."""
    model = chain(nn.ReLU(), nn.Identity())
    assert model(BLACK)[0, 1] > 0
    change(model)
    assert model(BLACK).tolist() == [[0.0, -0.5]]
    result = acert_zoo.certify(model, BLACK)
    assert result.prediction.tolist() == [0]
    assert torch.equal(result.radius, acert_zoo.certify(chain(nn.ReLU(), nn.ReLU()), BLACK).radius)


def test_global_hooks_take_part():
    model = chain(nn.ReLU(), nn.Identity())
    handle = nn_module.register_module_forward_hook(
        lambda module, inputs, output: output.relu() if isinstance(module, nn.Identity) else None
    )
    try:
        assert acert_zoo.certify(model, BLACK).prediction.tolist() == [0]
    finally:
        handle.remove()
    assert acert_zoo.certify(chain(nn.ReLU(), nn.ReLU(inplace=True)), BLACK).prediction.tolist() == [0]


def test_a_class_whose_forward_was_replaced_is_not_known(monkeypatch):
    model = chain(nn.ReLU(), nn.ReLU())
    assert known_layers.is_known(model)
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: -x)
    assert not known_layers.is_known(model)


# --- weights that are not what they seem ----------------------------------------------------------------------------


class Standardised(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class Negated(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def parametrized(layer: nn.Linear) -> None:
    parametrize.register_parametrization(layer, "weight", Negated())


def pruned(layer: nn.Linear) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)
    layer.weight_orig.data.mul_(-1)  # layer.weight is stale until the next forward


def weight_norm(layer: nn.Linear) -> None:
    nn.utils.weight_norm(layer).weight_g.data.mul_(-3)


def spectral_norm(layer: nn.Linear) -> None:
    nn.utils.spectral_norm(layer).eval().weight_orig.data.mul_(-3)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", [parametrized, pruned, weight_norm, spectral_norm, None])
def test_the_weights_of_the_forward_count(change, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = nn.Sequential(Standardised(1, 3, 3) if change is None else nn.Identity(), nn.Flatten())
        model.append(nn.Linear(12 if change is None else 16, 3)).eval()
        if change is not None:
            change(model[2])
        model.eval()
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network = read(model, (1, 4, 4)).network
    expected = model(images).detach()
    assert torch.allclose(network(images), expected, atol=1e-6)
    export_onnx(model, tmp_path / "n.onnx", (1, 4, 4))
    (found,) = onnxruntime.InferenceSession(tmp_path / "n.onnx").run(None, {"pixels": images.numpy()})
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)


# --- operations in place --------------------------------------------------------------------------------------------

VIEWS = {
    "itself": lambda a: a,
    "view": lambda a: a.view(a.shape[0], -1),
    "flatten": lambda a: a.flatten(1),
    "squeeze": lambda a: a.squeeze(1),
    "unsqueeze": lambda a: a.unsqueeze(1),
    "permute": lambda a: a.permute(0, 2, 3, 1),
    "slice": lambda a: a[:, :, 1:],
    "float": lambda a: a.float(),
    "detach": lambda a: a.detach(),
}
COPIES = {"clone": torch.clone, "pooled": lambda a: F.avg_pool2d(a, 1), "sum": lambda a: a + 0.0}


class InPlace(nn.Module):
    """a = conv(x); b = take(a); b *= -1.5; head(a): 1.5 times negative where b is a view of all of a."""

    def __init__(self, take) -> None:
        super().__init__()
        self.conv, self.head, self.take = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(16, 3), take

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(x)
        b = self.take(a)
        b.mul_(-1.5)
        return self.head(a.flatten(1))


@pytest.mark.parametrize("name", [*VIEWS, *COPIES])
def test_operations_in_place(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = InPlace({**VIEWS, **COPIES}[name]).eval()
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network, a = read(model, (1, 4, 4)).network, model.conv(images)
        assert torch.allclose(network(images), model(images), atol=1e-6)
        if name != "slice":
            factor = 1.0 if name in COPIES else -1.5
            assert torch.allclose(network(images), model.head(factor * a.flatten(1)), atol=1e-5)


def test_an_input_changed_in_place_is_not_the_callers():
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Hardtanh(0.2, 0.4, inplace=True), nn.Flatten(), nn.Linear(16, 3))
    assert bool((acert_zoo.certify(model.eval(), images).radius > 0).all())
    assert torch.equal(images, before)


# --- the zoo's own models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["model", "classifier", "layer"])
@pytest.mark.parametrize("kind", ["hook", "pre-hook", "forward"])
def test_hooks_on_the_zoos_own_models_take_part(kind, place):
    model, images = lively_model(), random_images(4)
    target = {"model": model, "classifier": model.classifier, "layer": model.classifier.layers[-1]}[place]
    original = target.forward
    if kind == "hook":
        target.register_forward_hook(lambda module, inputs, output: -output)
    elif kind == "pre-hook":
        target.register_forward_pre_hook(lambda module, inputs: (0.5 * inputs[0],))
    else:
        target.forward = lambda x: -original(x)
    result = acert_zoo.certify(model, images)
    assert torch.equal(result.prediction, model(images).argmax(1))
    assert not torch.equal(result.prediction, lively_model()(images).argmax(1))


def test_cascades_with_hooks_or_replaced_methods_are_refused():
    def build() -> acert_zoo.Cascade:
        return acert_zoo.Cascade([lively_model(0), lively_model(1)], ["1/1000"]).eval()

    images = random_images(2)
    hooked, replaced, inner = build(), build(), build()
    hooked.register_forward_hook(lambda module, inputs, output: -output)
    replaced.answer = lambda images: None
    inner.members[1].register_forward_hook(lambda module, inputs, output: -output)
    for cascade in (hooked, replaced):
        with pytest.raises(UnsoundSettingError, match="not certified as a cascade"):
            acert_zoo.certify(cascade, images)
        with pytest.raises(UnsoundSettingError, match="not certified as a cascade"):
            cascade.predict_certified(images, 0.001)
    assert torch.equal(acert_zoo.certify(inner, images).prediction, inner(images).argmax(1))


# --- parameters of another type -------------------------------------------------------------------------------------


class NegatedLinear(Tensor):
    """A weight under which `F.linear` gives the opposite, in copies of the layer too."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        return -result if function is F.linear else result


def test_weights_that_change_what_torchs_functions_do_are_refused():
    model = chain(nn.ReLU(), nn.ReLU())
    model[-1].weight = nn.Parameter(model[-1].weight.detach().as_subclass(NegatedLinear))
    with pytest.raises(UnsupportedLayerError, match="is a NegatedLinear"):
        acert_zoo.certify(model, BLACK)


def test_a_residual_block_whose_branch_changes_its_input():
    """main = in-place ReLU, so that the shortcut adds relu(v), not v; on black images (v = 0) they are the same."""
    block = Residual(1, 1, 1, batchnorm=False)
    block.main = nn.Sequential(nn.ReLU(inplace=True))
    shift = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        shift.weight.fill_(-1.0), shift.bias.zero_()
    model = nn.Sequential(shift, block, nn.Flatten(), nn.Linear(16, 3)).eval()
    assert not known_layers.is_known(model)
    network = read(model, (1, 4, 4)).network
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(images), model(images), atol=1e-6)


@pytest.mark.parametrize("name", ["inference mode", "python", "numpy"])
def test_what_depends_on_inference_mode_or_draws_numbers_is_refused(name):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.head(x.flatten(1))
            if name == "inference mode":
                return -y if torch.is_inference_mode_enabled() else y
            number = random.random() if name == "python" else np.random.random()  # noqa: NPY002
            return -y if number < 1e-9 else y

    match = "inference_mode" if name == "inference mode" else "draws random numbers"
    with pytest.raises(InvalidInputError, match=match):
        acert_zoo.certify(Odd().eval(), BLACK)
