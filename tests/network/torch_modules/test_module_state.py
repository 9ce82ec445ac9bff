"""What counts as a change of a module: everything that its forward can see, wherever it is kept."""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import logging
import random
import threading
import types

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acert_zoo.network.torch_modules import module_state
from acert_zoo.network.torch_modules.module_state import ModuleState

SETTINGS = {"limit": 1.0, "inner": types.SimpleNamespace(limit=[1.0])}


class Config:
    limit = 1.0

    def __init__(self) -> None:
        self.value, self.table = 1.0, {"a": [torch.zeros(2)]}


class Slots:
    __slots__ = ("limit",)

    def __init__(self) -> None:
        self.limit = 1.0


class Holder(nn.Module):
    shared: list = [1.0]  # of the class

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.unregistered = [nn.Linear(2, 2)]
        self.config, self.slots, self.space = Config(), Slots(), types.SimpleNamespace(limit=1.0)
        self.arguments, self.local, self.bytes = argparse.Namespace(limit=1.0), threading.local(), bytearray(b"ab")
        self.calls, self.queue = itertools.count(), collections.deque([1.0])
        self.draw, self.generator, self.numbers = random.Random(0), torch.Generator(), np.random.default_rng(0)
        self.partial = functools.partial(torch.clamp, max=Config())
        self.stream = iter([1, 2, 3])
        self.steps = (n for n in range(9))
        self.array = np.zeros(3)
        self.register_buffer("missing", torch.full((2,), torch.nan))

    @property
    def limit(self) -> float:
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(max=SETTINGS["limit"]) + SETTINGS["inner"].limit[0]


def _data(m: Holder) -> None:
    m.layer.weight.data[0, 0] += 1


def _numpy(m: Holder) -> None:
    m.layer.bias.detach().numpy()[0] += 1


def _unregistered(m: Holder) -> None:
    m.unregistered[0].weight.data.zero_()


def _global(m: Holder) -> None:
    SETTINGS["limit"] = SETTINGS["limit"] + 1.0


def _deep_global(m: Holder) -> None:
    SETTINGS["inner"].limit[0] += 1.0


def _mark(m: Holder) -> None:
    m.layer.weight.scale = 2.0


CHANGES = {
    "a weight, through .data": _data,
    "a weight, through numpy": _numpy,
    "a weight of a module in a list": _unregistered,
    "an attribute of an object": lambda m: setattr(m.config, "value", 2.0),
    "a tensor inside an object": lambda m: m.config.table["a"][0].add_(1),
    "an attribute of an object's class": lambda m: setattr(Config, "limit", Config.limit + 1),
    "an object with slots": lambda m: setattr(m.slots, "limit", 2.0),
    "a namespace": lambda m: setattr(m.space, "limit", 2.0),
    "arguments of a command": lambda m: setattr(m.arguments, "limit", 2.0),
    "what a thread keeps": lambda m: setattr(m.local, "calls", 1),
    "an array of bytes": lambda m: m.bytes.append(1),
    "a counter": lambda m: next(m.calls),
    "an iterator": lambda m: next(m.stream),
    "a generator": lambda m: next(m.steps),
    "a deque": lambda m: m.queue.append(2.0),
    "random numbers of Python": lambda m: m.draw.random(),
    "random numbers of torch": lambda m: torch.rand(1, generator=m.generator),
    "random numbers of numpy": lambda m: m.numbers.random(),
    "an argument of a partial function": lambda m: setattr(m.partial.keywords["max"], "value", 3.0),
    "an array": lambda m: m.array.__setitem__(0, 1.0),
    "a list of the class": lambda m: m.shared.append(1.0),
    "a global": _global,
    "an object in a global": _deep_global,
    "a parameter's flag": lambda m: m.layer.weight.requires_grad_(False),
    "an attribute of a parameter": _mark,
    "another object in a child's place": lambda m: setattr(m, "layer", nn.Linear(2, 2)),
    "a hook": lambda m: m.layer.register_forward_hook(lambda *a: None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_seen(name):
    module = Holder()
    state = ModuleState(module)
    assert state.whole
    assert state.unchanged(module)
    CHANGES[name](module)
    assert not state.unchanged(module)


def test_a_property_that_was_replaced(monkeypatch):
    module = Holder()
    state = ModuleState(module)
    monkeypatch.setattr(Holder, "limit", property(lambda self: 2.0))
    assert not state.unchanged(module)


def test_a_logger_is_no_state():
    module = Holder()
    module.log = logging.getLogger("acert_zoo.test")
    state = ModuleState(module)
    module.log.debug("its cache of levels changes")
    assert state.unchanged(module)


def test_what_holds_itself_and_what_is_too_large(monkeypatch):
    module = Holder()
    module.config.table["self"] = module.config.table
    module.config.parent = [module]
    state = ModuleState(module)
    assert state.whole
    assert state.unchanged(module)
    monkeypatch.setattr(module_state, "_MOST", 50)
    part = ModuleState(module)
    assert not part.whole
    assert part.unchanged(module)


def test_large_globals_are_not_copied(monkeypatch):
    monkeypatch.setitem(SETTINGS, "images", torch.zeros(1).expand(2**23))
    state = ModuleState(Holder())
    assert not state.whole


def test_a_scripted_module():
    module = torch.jit.script(nn.Linear(2, 2))
    state = ModuleState(module)
    assert state.unchanged(module)
    module.weight.data.add_(1)
    assert not state.unchanged(module)
