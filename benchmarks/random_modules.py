"""Random torch modules from a grammar, for `fuzz_modules.py`: what people write, and what breaks readers of modules.

A module is a list of statements over a list of values: layers (also one object at several places), functions,
operations in place on values, copies and views, branches and residuals, odd settings; on its layers, hooks of every
kind, replaced forwards, parametrizations, normalised weights; and now and then a forward that no network can represent
(randomness, state, mixing of the batch, branches on values or on the batch size, tricks against tracers). Statements
that torch refuses are left out. Equal seeds give equal modules.
"""

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

from benchmarks.random_layers import random_layer

SHAPES = ((1, 4, 4), (2, 5, 5), (3, 6, 4), (1, 6, 6), (4, 3, 3))
CLASSES = 3
HOSTILE = 0.2  # share of modules with one statement that no network can represent

Values = list[Tensor]
Statement = Callable[["Program", Values], None]


class Program(nn.Module):
    """Runs its statements on [images], then a linear head on the last value."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.head: nn.Module = nn.Identity()
        self.bias = 0.0
        self.statements: list[Statement] = []
        self.calls = 0

    def values(self, images: Tensor) -> Values:
        values = [images]
        for statement in self.statements:
            statement(self, values)
        return values

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.values(images)[-1].flatten(1)) + self.bias


def random_module(seed: int) -> tuple[nn.Module, tuple[int, int, int], str]:
    """(module in eval mode, shape (C, H, W) of its images, what is odd about it)."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        shape = rng.choice(SHAPES)
        program = Program().eval()
        notes: list[str] = []
        wanted = rng.randint(2, 9)
        while len(program.statements) < wanted:
            _try(program, shape, rng, rng.choice(_STATEMENTS), notes)
        if rng.random() < HOSTILE:
            _try(program, shape, rng, _hostile, notes)
        with torch.no_grad():
            last = program.values(torch.rand(2, *shape))[-1]
        program.head = nn.Linear(last[0].numel(), CLASSES)
        program.bias = rng.choice((0.0, 0.0, 0.0, 0.0, 1.0, 1e6))
        if rng.random() < 0.5:
            notes.append(_dress(program, rng))
        return program.eval(), shape, "; ".join(notes)


def _try(program: Program, shape: tuple[int, ...], rng: random.Random, make: Any, notes: list[str]) -> None:
    """Adds the statement if the program still runs with it, and its last value is of a moderate size."""
    layers = len(program.layers)
    try:
        with torch.no_grad():
            values = program.values(torch.rand(2, *shape))
            statement, note = make(program, values, rng)
            program.statements.append(statement)
            last = program.values(torch.rand(2, *shape))[-1]
        good = last.is_floating_point() and last.dim() > 1 and len(last) == 2
        if not (good and 0 < last[0].numel() <= 400 and bool(torch.isfinite(last).all()) and last.abs().max() < 1e3):
            raise RuntimeError("not wanted")
        notes.append(note)
    except Exception:  # whatever torch says to it
        if program.statements and len(program.statements) > len(notes):
            program.statements.pop()
        del program.layers[layers:]


# --- layers ---------------------------------------------------------------------------------------------------------


def _layer(program: Program, values: Values, rng: random.Random) -> tuple[Statement, str]:
    source = rng.choice((-1, -1, -1, rng.randrange(len(values))))
    x = values[source]
    if program.layers and rng.random() < 0.3:
        index = rng.randrange(len(program.layers))  # an object that stands elsewhere too
    else:
        program.layers.append(random_layer(x, rng))
        index = len(program.layers) - 1
    return (lambda m, v: v.append(m.layers[index](v[source]))), type(program.layers[index]).__name__


# --- functions, views, operations in place --------------------------------------------------------------------------


def _unary(x: Tensor, rng: random.Random) -> tuple[Callable[[Tensor], Tensor], str]:
    c = round(rng.uniform(-1.5, 1.5), 2)
    constant = torch.randn(rng.choice(([1], list(x.shape[1:]), [x.shape[-1]])))
    axis = rng.randrange(1, x.dim())
    size = x.shape[axis]
    begin = rng.randrange(size)
    order = [0, *rng.sample(range(1, x.dim()), x.dim() - 1)]
    choices: dict[str, Callable[[Tensor], Tensor]] = {
        "times": lambda v: v * c,
        "plus": lambda v: c + v,
        "minus from": lambda v: c - v,
        "over": lambda v: v / (c or 1.0),
        "neg": lambda v: -v,
        "constant plus": lambda v: v + constant,
        "constant times": lambda v: constant * v,
        "constant less": lambda v: torch.sub(constant, v, alpha=rng_alpha),
        "abs": torch.abs,
        "relu": F.relu,
        "clamp": lambda v: v.clamp(min(c, 0.2), 0.3),
        "clamp below": lambda v: v.clamp(min=c),
        "leaky": lambda v: F.leaky_relu(v, c),
        "maximum": lambda v: torch.maximum(v, v.flip(axis)),
        "minimum": lambda v: torch.minimum(v, 0.5 * v + 0.1),
        "clone": torch.clone,
        "detach": lambda v: v.detach(),
        "float": lambda v: v.float(),
        "contiguous": lambda v: v.contiguous(),
        "flatten": lambda v: v.flatten(1),
        "view": lambda v: v.reshape(v.shape[0], -1),
        "reshape -1": lambda v: v.reshape(-1, *v.shape[1:]),
        "unflatten": lambda v: v.unflatten(1, (1, -1)),
        "permute": lambda v: v.permute(order),
        "transpose": lambda v: v.transpose(1, -1),
        "squeeze": lambda v: v.squeeze(axis),
        "unsqueeze": lambda v: v.unsqueeze(axis),
        "slice": lambda v: v.narrow(axis, begin, size - begin),
        "stride": lambda v: v[:, ::2],
        "chunk": lambda v: v.chunk(2, axis)[0],
        "split": lambda v: torch.cat(v.split(1, axis)[::-1], axis),
        "select": lambda v: v.select(axis, begin),
        "flip": lambda v: v.flip(axis),
        "roll": lambda v: v.roll(1, axis),
        "pad": lambda v: F.pad(v, (1, 0), value=c),
        "mean": lambda v: v.mean(axis, keepdim=True) + v,
        "sum": lambda v: v.sum(-1, keepdim=True) * 0.1 - v,
        "amax": lambda v: v - v.amax(axis, keepdim=True),
        "max along": lambda v: v + v.max(axis, keepdim=True).values,
        "min along": lambda v: v.amin(axis, keepdim=True) - v,
        "numbers": lambda v: v + (v.flatten(1).mean(1) * c - 0.3).view(-1, *[1] * (v.dim() - 1)),
        "expand": lambda v: v[:, :1].expand(-1, 2, *v.shape[2:]),
        "repeat": lambda v: v.repeat(1, 2, *[1] * (v.dim() - 2)),
        "ones": lambda v: v + torch.ones(v.shape[0], *v.shape[1:]),
        "matrix": lambda v: v @ torch.ones(v.shape[-1], 3),
        "unused": lambda v: (F.relu(v), v + 0.0)[1],
    }
    rng_alpha = rng.choice((1, 2, 0.3))
    name = rng.choice(list(choices))
    return choices[name], name


def _function(program: Program, values: Values, rng: random.Random) -> tuple[Statement, str]:
    source = rng.choice((-1, -1, rng.randrange(len(values))))
    function, name = _unary(values[source], rng)
    return (lambda m, v: v.append(function(v[source]))), name


def _binary(program: Program, values: Values, rng: random.Random) -> tuple[Statement, str]:
    a, b = -1, rng.randrange(len(values))
    axis = rng.randrange(1, values[-1].dim())
    name, function = rng.choice(
        (
            ("add", torch.add),
            ("sub", torch.sub),
            ("scaled add", lambda x, y: torch.add(x, y, alpha=0.3)),
            ("cat", lambda x, y: torch.cat([x, y, x], axis)),
            ("stack", lambda x, y: torch.stack([x, y], 1)),
            ("max", torch.maximum),
            ("min", torch.minimum),
            ("product", torch.mul),
        )
    )
    if name == "product" and rng.random() < 0.8:
        name, function = "add", torch.add
    return (lambda m, v: v.append(function(v[a], v[b]))), name


def _in_place(program: Program, values: Values, rng: random.Random) -> tuple[Statement, str]:
    """Changes a value, directly or through a view; every later use of it and of its views sees that."""
    target = rng.randrange(len(values))
    x = values[target]
    view, name = _unary(x, rng) if rng.random() < 0.6 else ((lambda v: v), "itself")
    c = round(rng.uniform(-1.5, 1.5), 2)

    def assign(v: Tensor) -> None:
        v[:, 0] = c

    def copy(v: Tensor) -> None:
        v[:, -1] = v[:, 0] * c

    what, change = rng.choice(
        (
            ("mul_", lambda v: v.mul_(c)),
            ("add_", lambda v: v.add_(c)),
            ("relu_", torch.relu_),
            ("clamp_", lambda v: v.clamp_(-0.2, 0.5)),
            ("neg_", lambda v: v.neg_()),
            ("sub_", lambda v: v.sub_(v.flip(1))),
            ("assign", assign),
            ("copy", copy),
            ("zero_", lambda v: v[:, :1].zero_()),
            ("copy_", lambda v: v.copy_(v.flip(-1))),
            ("data", lambda v: v.data.mul_(c)),
            ("iadd", lambda v: v.__iadd__(c)),
        )
    )

    def statement(m: Program, v: Values) -> None:
        seen = view(v[target])
        change(seen)
        if target == 0 or seen.dim() < 2:
            v.append(v[target] + 0.0)
        else:
            v.append(v[target] if seen.shape != v[target].shape else 0.5 * seen + v[target])

    return statement, f"{what} on {name}"


_STATEMENTS = (_layer, _layer, _layer, _layer, _function, _function, _function, _binary, _in_place, _in_place)


# --- what no network can represent ----------------------------------------------------------------------------------


def _hostile(program: Program, values: Values, rng: random.Random) -> tuple[Statement, str]:
    def count(m: Program, x: Tensor) -> Tensor:
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

    tricks: dict[str, Callable[[Program, Tensor], Tensor]] = {
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


def _dress(program: Program, rng: random.Random) -> str:
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
