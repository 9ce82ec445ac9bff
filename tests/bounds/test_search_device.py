"""Where a search runs: what is named, what is there, and that proofs and predictions stay on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from acert_zoo import Cascade, certify
from acert_zoo.bounds.ibp import class_margins
from acert_zoo.bounds.network_certifier import NetworkCertifier
from acert_zoo.bounds.radius_search import RadiusSearch
from acert_zoo.bounds.search_device import full_float32, search_device
from acert_zoo.errors import InvalidInputError
from acert_zoo.network.tracing import trace
from tests.support.models import SHAPE, small_model

IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_the_cpu_is_the_default_by_whatever_name() -> None:
    model = small_model()
    expected = certify(model, IMAGES)
    for device in ("cpu", "cpu:0", torch.device("cpu")):
        assert torch.equal(certify(model, IMAGES, device=device).radius, expected.radius)


def test_devices_that_are_not_here_are_refused_and_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match=r"'cuda' is not on this machine.*; here: cpu$"):
        certify(small_model(), IMAGES, device="cuda")
    for name in ("meta", "mps", "gpu", ""):
        with pytest.raises(InvalidInputError, match="is not one that certificates are searched on; here: cpu"):
            search_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert search_device("cuda") == torch.device("cuda:0")
    assert search_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InvalidInputError, match=r"'cuda:2' is not on this machine.*; here: cpu, cuda:0, cuda:1"):
        search_device("cuda:2")


def test_only_the_search_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may compute anything: what its search finds is proved, or is no radius."""
    network = trace(small_model()).detach()
    search = RadiusSearch(network, device=torch.device("meta"))
    assert search.network.head.weight.is_meta
    assert search.proofs is not None
    assert {
        t.device.type
        for step in search.proofs.rigorous.network.steps
        for t in vars(step).values()
        if torch.is_tensor(t)
    } == {"cpu"}
    certifier = NetworkCertifier(network, SHAPE, "ibp", "real-sound", None, device=torch.device("cpu"))
    honest = certifier(IMAGES, None)

    def nonsense(net: object, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        return torch.full((len(images), network.num_classes), 1e3).scatter(1, labels.unsqueeze(1), torch.inf)

    monkeypatch.setattr("acert_zoo.bounds.radius_search.class_margins", nonsense)
    found = certifier(IMAGES, None)
    assert torch.equal(found.prediction, honest.prediction)
    proved = certifier.search.proofs.rigorous.margins(IMAGES, found.label, found.radius)
    assert bool((proved[found.radius > 0] > 0).all())
    torch.testing.assert_close(found.radius, honest.radius, rtol=1e-5, atol=0)


def test_a_cascade_stays_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidInputError, match="a Cascade is certified on the CPU alone, not on 'cuda:0'"):
        certify(Cascade([small_model(), small_model(1)], ["1/255"]).eval(), IMAGES, device="cuda")


def test_tf32_is_off_during_a_search_on_a_gpu_and_as_before_afterwards() -> None:
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    try:
        products.allow_tf32 = True
        with full_float32(torch.device("cuda")):
            assert not products.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert products.allow_tf32
        with full_float32(torch.device("cpu")):
            assert products.allow_tf32
    finally:
        products.allow_tf32 = before


def test_every_operation_of_the_search_is_on_its_device() -> None:
    """Fake CUDA tensors know shapes and devices alone, and raise where two devices meet."""
    network, labels = trace(small_model()).detach(), torch.zeros(len(IMAGES), dtype=torch.int64)
    cuda = torch.device("cuda", 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        there = network.map_tensors(lambda t: t.to(cuda))
        eps = torch.full((len(IMAGES),), 1 / 255, dtype=torch.float64).to(cuda)
        margins = class_margins(there, IMAGES.to(cuda), labels.to(cuda), eps)
    assert (margins.device, margins.dtype, tuple(margins.shape)) == (cuda, torch.float32, (len(IMAGES), 4))
