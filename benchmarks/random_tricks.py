"""What breaks readers of modules, for `random_modules.py`: what no network can represent, hooks, replaced forwards."""

from __future__ import annotations

import random
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.utils.parametrize as parametrize
from torch import Tensor, nn
from torch.nn.utils import prune


def hostile(program: Any, values: list[Tensor], rng: random.Random) -> tuple[Callable[[Any, list[Tensor]], None], str]:
    """A statement that no network can represent, and its name."""

    def count(m: Any, x: Tensor) -> Tensor:
        m.calls += 1
        return x * (1.0 if m.calls < 60 else -1.0)

    def numpy(x: Tensor) -> Tensor:
        try:
            return torch.from_numpy(-x.detach().numpy())
        except Exception:  # a tracer's tensor has no numbers
            return x

    def peek(x: Tensor, sign: float) -> Tensor:
        try:
            return x * sign if float(x.mean()) > 0.5 else x
        except Exception:
            return x

    tricks: dict[str, Callable[[Any, Tensor], Tensor]] = {
        "batch mean": lambda m, x: x - x.mean(0, keepdim=True),
        "batch size": lambda m, x: x * x.shape[0],
        "one image": lambda m, x: -x if x.shape[0] == 1 else x,
        "some images": lambda m, x: -x if x.shape[0] > 3 else x,
        "first image": lambda m, x: x - 0.5 * x[:1],
        "batch flip": lambda m, x: x.flip(0),
        "random": lambda m, x: x + 0.1 * torch.rand_like(x),
        "dropout": lambda m, x: F.dropout(x, 0.3, True),
        "state": count,
        "numpy": lambda m, x: numpy(x),
        "value": lambda m, x: x if float(x.sum()) > 1 else -x,
        "where": lambda m, x: torch.where(x > 0.2, x, -x),
        "sign": lambda m, x: torch.sign(x),
        "round": lambda m, x: (10 * x).long().float() / 10,
        "half": lambda m, x: x.half().float(),
        "double": lambda m, x: x.double().float(),
        "grad mode": lambda m, x: x if torch.is_grad_enabled() else -x,
        "type": lambda m, x: x * (1.3 if type(x) is Tensor else 1.0),
        "mean peeked at": lambda m, x: peek(x, -1.0),
        "softmax": lambda m, x: x.softmax(1),
        "sort": lambda m, x: x.sort(1).values,
        "layer norm": lambda m, x: F.layer_norm(x, x.shape[1:]),
    }
    name = rng.choice(list(tricks))
    trick = tricks[name]
    return (lambda m, v: v.append(trick(m, v[-1]))), f"HOSTILE {name}"


def dress(program: Any, rng: random.Random) -> str:
    """A hook, a replaced forward, a parametrization or a normalised weight on one of the layers, or on the module."""
    layer: Any = rng.choice([*program.layers, program, program.head])
    c = rng.choice((-1.0, 0.5, 1.5))

    def in_place(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.mul_(c)

    class Scaled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * c + 0.01

    original = layer.forward
    kinds: dict[str, Callable[[], Any]] = {
        "hook": lambda: layer.register_forward_hook(lambda m, i, o: o * c),
        "clamping hook": lambda: layer.register_forward_hook(lambda m, i, o: o.clamp(min=-0.1)),
        "hook in place": lambda: layer.register_forward_hook(in_place),
        "pre-hook": lambda: layer.register_forward_pre_hook(lambda m, i: (i[0] * c,)),
        "pre-hook in place": lambda: layer.register_forward_pre_hook(lambda m, i: i[0].add_(c) and None),
        "hook with kwargs": lambda: layer.register_forward_hook(lambda m, i, k, o: o + c, with_kwargs=True),
        "forward": lambda: setattr(layer, "forward", lambda *a: original(*a) * c),
        "method": lambda: setattr(layer, "forward", types.MethodType(lambda self, x: original(x).abs(), layer)),
    }
    if isinstance(getattr(layer, "weight", None), nn.Parameter) and layer.weight.dim() > 1:
        kinds |= {
            "parametrization": lambda: parametrize.register_parametrization(layer, "weight", Scaled()),
            "weight norm": lambda: nn.utils.parametrizations.weight_norm(layer),
            "old weight norm": lambda: nn.utils.weight_norm(layer) and layer.weight_g.data.mul_(c),
            "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(layer),
            "old spectral norm": lambda: nn.utils.spectral_norm(layer).eval() and layer.weight_orig.data.mul_(c),
            "pruning": lambda: prune.l1_unstructured(layer, "weight", 0.4) and layer.weight_orig.data.mul_(c),
        }
    name = rng.choice(list(kinds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds[name]()
    return f"{name} on {type(layer).__name__}"
