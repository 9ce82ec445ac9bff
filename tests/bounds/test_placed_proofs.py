"""Proofs on the device of a search: where it may, every operation there; where it may not, today's bits of the CPU.

No GPU is needed: fake CUDA tensors know shapes and devices and raise where two devices meet, and a search whose device
is another one may be given provers of the CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from acert_zoo.bounds import placed_proofs, proof_device, rigorous_ibp
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.margin_rows import MarginRows
from acert_zoo.bounds.placed_proofs import PlacedProofs, placed_network
from acert_zoo.bounds.radius_search import RadiusSearch
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network.graph import Network
from acert_zoo.network.tracing import trace
from tests.support.models import SHAPE, small_model

CUDA = torch.device("cuda", 0)
IMAGES = torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(1))
NETWORK = trace(small_model()).detach()
LABELS = NETWORK(IMAGES).argmax(1)


def search_elsewhere() -> RadiusSearch:
    """A search that believes its proofs to belong on another device."""
    search = RadiusSearch(NETWORK)
    assert search.proofs is not None
    search.proofs.device = torch.device("meta")
    return search


def test_a_device_that_may_not_prove_leaves_the_bits_of_the_cpu() -> None:
    expected = RadiusSearch(NETWORK)(IMAGES, LABELS, NETWORK(IMAGES))
    found = search_elsewhere()(IMAGES, LABELS, NETWORK(IMAGES))
    assert torch.equal(found.radius, expected.radius)
    with pytest.raises(UnsoundSettingError, match="float64 arithmetic of meta is not known here"):
        placed_network(NETWORK, "real-sound", torch.device("meta"), IMAGES)


def test_a_device_that_may_proves_every_radius_in_float64_once_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def placed(network: Any, rounding: str, device: torch.device, images: Tensor) -> RigorousNetwork:
        asked.append(tuple(images.shape[1:]))
        return RigorousNetwork(network, rounding)

    monkeypatch.setattr(placed_proofs, "placed_network", placed)
    search = search_elsewhere()
    usual = RadiusSearch(NETWORK)(IMAGES, LABELS, NETWORK(IMAGES))
    for _ in range(2):
        found = search(IMAGES, LABELS, NETWORK(IMAGES))
    assert asked == [SHAPE]
    assert found.proofs > usual.proofs  # no float32 change of a box
    torch.testing.assert_close(found.radius, usual.radius, rtol=2e-6, atol=0)
    good = found.radius > 0
    assert good.any()
    assert RigorousNetwork(NETWORK).proves(IMAGES[good], LABELS[good], found.radius[good]).all()


def test_a_layer_that_fails_its_question_sends_the_proofs_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> None:
        raise UnsoundSettingError("float64 Conv '0' of 2 images: gave 1.0")

    monkeypatch.setattr(proof_device, "check_device", lambda device: None)
    monkeypatch.setattr(placed_proofs.device_probe, "probe_network", wrong)
    proofs = PlacedProofs(NETWORK, "real-sound", torch.device("meta"))
    assert proofs.of(IMAGES) == (proofs.rigorous, proofs.change)


class Answers(TorchDispatchMode):
    """A fake tensor has no value to read: every question about one is answered by 1, or yes."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1.0
        return func(*args, **(kwargs or {}))


def every_layer(batch_normalisation: bool) -> Network:
    """Long sums, strides, groups, pooling and functions."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(32) if batch_normalisation else nn.Identity()
    first = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), norm, nn.Conv2d(32, 32, 3, padding=1), nn.Sigmoid()]
    middle = [nn.Conv2d(32, 32, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU()]
    last = [nn.AvgPool2d(2, 1), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(64, 300), nn.Tanh(), nn.Linear(300, 4)]
    return trace(nn.Sequential(*first, *middle, *last).eval(), SHAPE).detach()


@pytest.mark.parametrize("level", ["real-sound", "float32-deployed"])
def test_every_operation_of_a_proof_is_on_its_device(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """Two devices that meet raise."""
    for module, name in ((proof_device, "check_device"), (proof_device, "check_settings")):
        monkeypatch.setattr(module, name, lambda device: None)
    monkeypatch.setattr(rigorous_ibp.preconditions, "check_network", lambda network, rounding: None)
    monkeypatch.setattr(rigorous_ibp.preconditions, "check_backend", lambda rounding: None)
    for module_name in ("margin_rows", "float32_deployed"):  # sorting labels reads them
        monkeypatch.setattr(f"acert_zoo.bounds.{module_name}.by_label", lambda labels: [(0, slice(None))])
    count, seen = 8, []
    lower = MarginRows.lower

    def watched(self: MarginRows, x: Interval, labels: Tensor, alive: Tensor) -> Tensor:
        seen.extend((x.lower.device, x.upper.device, labels.device, alive.device, self.weight.device))
        return lower(self, x, labels, alive)

    monkeypatch.setattr(MarginRows, "lower", watched)
    network, images = every_layer(level == "real-sound"), IMAGES[:1].expand(count, *SHAPE)
    labels, eps = torch.zeros(count, dtype=torch.int64), torch.full((count,), 1 / 255, dtype=torch.float64)
    with FakeTensorMode(allow_non_fake_inputs=True), Answers():
        rigorous = RigorousNetwork(network, level, device=CUDA)
        monkeypatch.setattr(rigorous, "_check", lambda images, labels, eps: eps)
        margins = rigorous.class_margins(images, labels, eps)
    assert (margins.device.type, margins.dtype, tuple(margins.shape)) == ("cpu", torch.float64, (count, 4))
    assert set(seen) == {CUDA}
