"""CNN-7 state dicts as other code bases store them, made here from a network and read back into it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from acert_zoo.errors import WeightsError
from acert_zoo.network import architectures
from acert_zoo.network.state_dicts import convert_state_dict, unwrap_checkpoint

ARGUMENTS = {"input_shape": (3, 8, 8), "num_classes": 4, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def cnn7(seed: int, **changes) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architectures.build("cnn7", **ARGUMENTS, width=3, hidden=6, batchnorm=True, **changes)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(seed + 7)
    return model.eval()


def layers(model: nn.Module) -> dict[str, Tensor]:
    """{"1.weight": ...}: keys by number, normalisation left out, as an nn.Sequential of the layers would have them."""
    state = {k.removeprefix("layers."): v for k, v in model.state_dict().items()}
    return {k: v for k, v in state.items() if not k.startswith("0.")}


FORMS = {
    "blocks": lambda s: {f"blocks.layers.{k}": v for k, v in s.items()},
    "data parallel checkpoint": lambda s: {"epoch": 7, "state_dict": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {"model_state_dict": {f"_orig_mod.model.layers.{k}": v for k, v in s.items()}},
    "wrapped bound module": lambda s: {f"net.blocks.layers.{k}": v for k, v in s.items()},
    "bound module's scopes": lambda s: {f"/{k.replace('.', '/')}": v for k, v in s.items()},
    "other numbers": lambda s: {f"layers.{3 * int(k.split('.')[0]) + 1}.{k.split('.')[1]}": v for k, v in s.items()},
    "sorted as text": lambda s: dict(sorted((f"layers.{k}", v) for k, v in s.items())),
    "beside a tensor": lambda s: {"epoch": 3, "best_acc1": torch.tensor(91.2), "state_dict": s},
    "beside the generator's state": lambda s: {"net": s, "rng_state": torch.get_rng_state()},
    "container in a container": lambda s: {"state": torch.ones(2), "model": {"loss": torch.ones(1), "state_dict": s}},
    "AveragedModel": lambda s: {"n_averaged": torch.tensor(5), **{f"module.layers.{k}": v for k, v in s.items()}},
    "compiled, then parallel": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "parallel, then compiled": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "without counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("form", FORMS)
def test_stored_under_other_names_it_is_the_same_network(form):
    source, target = cnn7(0), cnn7(1)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(source(images), target(images))
    target.load_state_dict(convert_state_dict(FORMS[form](layers(source)), target), strict=True)
    assert torch.equal(source(images), target(images))


def test_the_zoos_own_keys_pass_through():
    source = cnn7(0)
    converted = convert_state_dict({"model": source.state_dict()}, cnn7(1))
    assert all(torch.equal(v, converted[k]) for k, v in source.state_dict().items())


def test_normalisation_constants_are_taken_where_the_file_holds_them():
    stored = {f"blocks.layers.{k}": v for k, v in layers(cnn7(0)).items()}
    stored |= {
        "normalizer.mean": torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1),
        "normalizer.sigma": torch.tensor([0.6]),
    }
    converted = convert_state_dict(stored, cnn7(1))
    assert torch.equal(converted["layers.0.mean"], torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(converted["layers.0.std"], torch.full((3,), 0.6))
    kept = convert_state_dict(FORMS["blocks"](layers(cnn7(0))), cnn7(1))
    assert torch.allclose(kept["layers.0.mean"], torch.tensor(ARGUMENTS["mean"]))


def test_a_convolution_stored_without_bias_has_bias_zero():
    stored = {f"layers.{k}": v for k, v in layers(cnn7(0)).items() if k != "1.bias"}
    assert not convert_state_dict(stored, cnn7(1))["layers.1.bias"].any()


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    stored = {f"layers.{k}": v for k, v in layers(cnn7(0)).items()}
    for key, value in changes.items():
        name = key.replace("__", ".")
        if value is None:
            del stored[name]
        else:
            stored[name] = value
    return stored


LAST = max(int(k.split(".")[0]) for k in layers(cnn7(0)))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({}, "no tensors"),
        ({"epoch": 3, "optimizer": {"lr": 0.1}}, "no tensors"),
        (changed(layers__1__weight=torch.zeros(3, 3, 5, 5)), r"weight must have shape \(3, 3, 3, 3\)"),
        (changed(layers__2__running_var=None), "running_var must have shape"),
        (changed(layers__99__weight=torch.zeros(2)), "has 14 layers with parameters, the network 13"),
        (changed(layers__1__scale=torch.zeros(2)), "belong to no layer: layers.1.scale"),
        ({k: v for k, v in changed().items() if not k.startswith(f"layers.{LAST}.")}, "has 12 layers with parameters"),
        (changed(layers__1__running_mean=torch.zeros(3)), "has running_mean, which"),
    ],
    ids=["empty", "no tensors", "shape", "missing", "one more", "unknown key", "one less", "kind"],
)
def test_what_does_not_fit_is_named(checkpoint, message):
    with pytest.raises(WeightsError, match=message):
        convert_state_dict(checkpoint, cnn7(1))


def test_unwrapping_by_hand():
    one = torch.zeros(1)
    assert unwrap_checkpoint({"state_dict": {"net": {"module.a": one, "module.b": one}}}).keys() == {"a", "b"}
    assert unwrap_checkpoint({"model.a": one, "b": one}).keys() == {"model.a", "b"}
