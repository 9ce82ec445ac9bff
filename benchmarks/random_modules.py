"""Random torch modules from a grammar, for `fuzz_modules.py`: what people write, and what breaks readers of modules.

A module is a list of statements over a list of values: layers (also one object at several places), functions,
operations in place on values, copies and views, branches and residuals, odd settings; on its layers, hooks of every
kind, replaced forwards, parametrizations, normalised weights; and now and then a forward that no network can represent
(randomness, state, mixing of the batch, branches on values or on the batch size, tricks against tracers). Statements
that torch refuses are left out. Equal seeds give equal modules.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.random_layers import random_layer
from benchmarks.random_tricks import dress, hostile

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
            _try(program, shape, rng, hostile, notes)
        with torch.no_grad():
            last = program.values(torch.rand(2, *shape))[-1]
        program.head = nn.Linear(last[0].numel(), CLASSES)
        program.bias = rng.choice((0.0, 0.0, 0.0, 0.0, 1.0, 1e6))
        if rng.random() < 0.5:
            notes.append(dress(program, rng))
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
