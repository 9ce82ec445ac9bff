"""Modules that no network can represent (mixing of the batch, state, randomness, tricks against tracers): refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acert_zoo
from acert_zoo.errors import AcertZooError, InvalidInputError, UnsupportedLayerError
from acert_zoo.network.onnx_files import export_onnx
from acert_zoo.network.vnnlib import export_vnnlib


class Code(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head = nn.Linear(16, 3)
        self.function, self.calls = function, 0
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x, self.head(x.flatten(1)))


def counted(m: Code, x: Tensor, y: Tensor) -> Tensor:
    m.calls += 1
    return y if m.calls < 60 else -y


def buffered(m: Code, x: Tensor, y: Tensor) -> Tensor:
    m.seen.add_(1)
    return y * (m.seen < 60)


def numpy(m: Code, x: Tensor, y: Tensor) -> Tensor:
    try:
        return torch.from_numpy(-y.detach().numpy())
    except Exception:  # a tracer's tensor has no numbers
        return y


def bright(m: Code, x: Tensor, y: Tensor) -> Tensor:
    """Changes the answer on the certified images alone; random ones do not show it."""
    try:
        return -y if float(x.mean()) > 0.9 else y
    except Exception:
        return y


def sly(gain: float, bias: float):
    """A tracer sees `gain` as 1; the common bias hides the difference from whoever looks at the size of logits."""
    return lambda m, x, y: y * (gain if type(x) is Tensor else 1.0) + bias


HOSTILE = {
    "batch mean": lambda m, x, y: y - y.mean(0, keepdim=True),
    "other images": lambda m, x, y: y + y.flip(0),
    "batch size": lambda m, x, y: y * x.shape[0],
    "alone": lambda m, x, y: -y if x.shape[0] == 1 else y,
    "many": lambda m, x, y: y if x.shape[0] > 4 else -y,
    "branch": lambda m, x, y: y if x.mean() > 10 else -y,
    "any": lambda m, x, y: -y if (x > 10).any() else y,
    "where": lambda m, x, y: torch.where(y > 0, y, -y),
    "cond": lambda m, x, y: torch.cond(x.sum() > 8, lambda v: v * 1, lambda v: -v, (y,)),
    "item": lambda m, x, y: y * x.mean().item(),
    "random": lambda m, x, y: y + 1e-7 * torch.rand(3),
    "dropout": lambda m, x, y: F.dropout(y, 0.1, True),
    "counter": counted,
    "buffer": buffered,
    "numpy": numpy,
    "gradients": lambda m, x, y: -y if x.requires_grad else y,
    "grad mode": lambda m, x, y: y if torch.is_grad_enabled() else -y,
    "bright": bright,
    "sly": sly(1.01, 0.0),
    "sly, bias 1e6": sly(1.1, 1e6),
    "sly, bias 3e7": sly(-1.0, 3e7),
    "to integers": lambda m, x, y: (10 * y).long().float(),
    "to half": lambda m, x, y: y.half().float(),
    "product": lambda m, x, y: y * y,
    "tuple": lambda m, x, y: (y,),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_network_can_represent_is_refused(name):
    images = 0.95 + 0.05 * torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises((InvalidInputError, UnsupportedLayerError)):
        acert_zoo.certify(Code(HOSTILE[name]).eval(), images)


def test_a_model_that_asks_for_the_memory_format_is_refused():
    class Order(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(48, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)) * (1.0 if x.is_contiguous() else -1.0)

    with pytest.raises(InvalidInputError, match="memory format"):
        acert_zoo.certify(Order().eval(), torch.rand(2, 3, 4, 4))


def test_a_common_bias_hides_nothing_and_costs_nothing():
    """Without the trick the same module is certified: the float64 copy shows that it is what it seems."""
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = acert_zoo.certify(Code(sly(1.0, 0.0)).eval(), images).radius
    assert torch.allclose(acert_zoo.certify(Code(sly(1.0, 1e6)).eval(), images).radius, plain, rtol=1e-6)


def test_nothing_is_exported_that_is_another_network(tmp_path):
    pytest.importorskip("onnx")
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AcertZooError):
        export_onnx(Code(sly(1.01, 0.0)).eval(), tmp_path / "n.onnx", (1, 4, 4))
    with pytest.raises(AcertZooError):
        export_vnnlib(Code(bright).eval(), 0.95 + 0 * images, None, "1/255", tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_one_number_an_image_times_a_constant_is_refused_by_name():
    module = Code(lambda m, x, y: y + (x.flatten(1)[:, 0] * 2.0).unsqueeze(1)).eval()
    with pytest.raises(UnsupportedLayerError, match="a single number an image"):
        acert_zoo.certify(module, torch.rand(2, 1, 4, 4))
