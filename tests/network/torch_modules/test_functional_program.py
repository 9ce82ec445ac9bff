"""The short way to a functional program against torch's own long one: the same networks, the same refusals.

Also tested here: network/torch_modules/module_export.py.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acert_zoo.errors import UnsupportedLayerError
from acert_zoo.network.building.builder import Builder
from acert_zoo.network.graph import Network
from acert_zoo.network.torch_modules import functional_program, module_export
from acert_zoo.network.torch_modules.aten_reader import read_program
from acert_zoo.network.tracing import finish

SHAPE = (2, 4, 4)


class Code(nn.Module):
    def __init__(self, function, inputs: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head, self.last, self.norm = nn.Linear(inputs, 3), nn.Linear(4, 5), nn.BatchNorm2d(2)
            self.slope = nn.PReLU(2)
        self.norm.running_mean.fill_(0.3)
        self.register_buffer("seen", torch.zeros(2, 1, 1))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self, x).flatten(1))


def clamped(m: Code, x: Tensor) -> Tensor:
    y = x - 0.5
    y[:, :1].clamp_(-0.1, 0.2)
    y.flatten(1)[:, 3:].mul_(-1.5)
    return y


def changed_input(m: Code, x: Tensor) -> Tensor:
    y = x.view(-1, 32)
    x.sub_(0.5).relu_()
    return y


PROGRAMS = {
    "in place": (clamped, 32),
    "the input, in place": (changed_input, 32),
    "linear on the last axis": (lambda m, x: m.last(x).relu() @ torch.ones(5, 2), 16),
    "batch norm, prelu": (lambda m, x: m.slope(m.norm(x) - 0.4), 32),
    "pooling, padding": (lambda m, x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=0.2), 2), 18),
    "split, stack": (lambda m, x: torch.stack(x.split(1, 1), 3), 32),
}


def both(model: nn.Module) -> list[Network | str]:
    """What is read the short way and the long way; the text of a refusal."""
    images = torch.zeros(module_export.BATCH, *SHAPE)
    free = ({0: torch.export.Dim("batch", min=1)},)
    found: list[Network | str] = []
    for way in (functional_program._retraced, functional_program._decomposed):
        with torch.no_grad():
            program = torch.export.export(module_export._Forward(model), (images,), dynamic_shapes=free, strict=False)
            table = module_export._decompositions()
            short = way is functional_program._retraced
            program = way(program, table) if short else way(program.run_decompositions(table))
        builder = Builder(SHAPE)
        try:
            found.append(finish(builder, read_program(program, model, builder)))
        except UnsupportedLayerError as error:
            found.append(str(error))
    return found


@pytest.mark.skipif(not hasattr(torch.export, "default_decompositions"), reason="there is one way only")
@pytest.mark.parametrize("name", PROGRAMS)
def test_both_ways_lead_to_one_network(name):
    model = Code(*PROGRAMS[name]).eval()
    short, long = both(model)
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(short(images), model(images.clone()), atol=1e-5)
        if name != "linear on the last axis":  # the long way does not read the product with a matrix
            assert torch.allclose(short(images), long(images), atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.export, "default_decompositions"), reason="there is one way only")
def test_a_change_of_state_is_seen_both_ways():
    def count(m: Code, x: Tensor) -> Tensor:
        m.seen[1].add_(1)
        return x + m.seen

    for found in both(Code(count, 32).eval()):
        assert "changes its own state" in found


def test_what_is_not_aten_alone_takes_the_long_way():
    model = Code(lambda m, x: torch.cond(x.sum() > 8, lambda v: v * 1, lambda v: -v, (x,)), 32).eval()
    images, free = torch.zeros(5, *SHAPE), ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model, (images,), dynamic_shapes=free, strict=False)
    assert not functional_program._of_aten_alone(program)
    plain = torch.export.export(Code(clamped, 32).eval(), (images,), dynamic_shapes=free, strict=False)
    assert functional_program._of_aten_alone(plain)
