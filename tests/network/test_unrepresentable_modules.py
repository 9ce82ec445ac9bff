"""Modules that no network can represent (mixing of the batch, state, randomness, tricks against tracers): refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import acert_zoo
from acert_zoo.errors import AcertZooError, InvalidInputError, UnsupportedLayerError
from acert_zoo.network.onnx.files import export_onnx
from acert_zoo.network.reading import read
from acert_zoo.network.torch_modules import module_export
from acert_zoo.network.vnnlib.writer import export_vnnlib


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
    "nested": lambda m, x, y: torch.nested.nested_tensor(list(y), layout=torch.jagged),
    "sparse": lambda m, x, y: y.to_sparse(),
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


NUMBERS = {
    "first pixel": lambda x: x.flatten(1)[:, 0] * 2.0,
    "mean": lambda x: 1 - x.mean((1, 2, 3)) / -3 - torch.tensor([0.5]),
    "maximum": lambda x: F.leaky_relu(x.amax((1, 2, 3)) - 0.8, 0.3).clamp(-0.1, 0.1),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_one_number_an_image_and_constants(name):
    module = Code(lambda m, x, y: y + NUMBERS[name](x).unsqueeze(1) * torch.tensor([1.0, -2.0, 0.0])).eval()
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network = read(module, (1, 4, 4)).network
    assert torch.allclose(network(images), module(images), atol=1e-6)


def test_a_forward_that_cannot_be_followed_is_said_in_plain_words(capfd):
    """Where it stopped and why; torch's own account of its graph stays away from the terminal."""

    def asserts(m: Code, x: Tensor, y: Tensor) -> Tensor:
        assert (x >= 0).all()
        return y

    def objects(m: Code, x: Tensor, y: Tensor) -> Tensor:
        if type(x) is not Tensor:
            raise TypeError("tensors only")
        return y

    for function, words in (
        (asserts, r"test_unrepresentable_modules\.py, line \d+ \(assert .*asks for the numbers in a tensor"),
        (objects, r"line \d+ .*TypeError: tensors only"),
        (HOSTILE["many"], "for some numbers of images only"),
    ):
        with pytest.raises(UnsupportedLayerError, match=words) as raised:
            acert_zoo.certify(Code(function).eval(), torch.rand(2, 1, 4, 4))
        assert "Sym" not in str(raised.value)
    assert capfd.readouterr().err == ""


def test_attention_is_refused_by_name_before_it_is_taken_apart(monkeypatch):
    """Taking a vision transformer apart costs most of a minute; what surely has no rule is named before."""
    monkeypatch.setattr(module_export, "functional", None)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    module = Code(lambda m, x, y: y + m.layer(x[:, 0]).mean((1, 2)).unsqueeze(1)).eval()
    module.layer = layer.eval()
    with pytest.raises(UnsupportedLayerError, match=r"(attention|layer_norm).* is not supported"):
        acert_zoo.certify(module, torch.rand(2, 1, 4, 4))


def test_no_memory_is_taken_for_what_is_refused():
    """As rows of the identity matrix a slice of 150,528 pixels would take 90 GB."""

    class Slice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(16000, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)[:, 100:16100])

    with pytest.raises(UnsupportedLayerError, match=r"matrix of shape \(16000, 150528\)"):
        read(Slice().eval(), (3, 224, 224))
