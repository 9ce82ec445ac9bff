"""Which devices may prove: the settings that are looked at, what is remembered, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from acert_zoo.bounds import device_probe, proof_device
from acert_zoo.bounds.proof_device import check_device, check_settings, plain_sums, refused
from acert_zoo.errors import UnsoundSettingError

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The settings of a machine with an H100."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    proof_device._arithmetic_refused.cache_clear()
    yield monkeypatch
    proof_device._arithmetic_refused.cache_clear()


def blas(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda m: m.setattr(torch.backends.cuda, "preferred_blas_library", lambda: f"_BlasBackend.{name}")


def test_a_known_gpu_with_known_settings(gpu: pytest.MonkeyPatch) -> None:
    check_settings(CUDA)
    check_settings(torch.device("cpu"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.setattr(torch.cuda, "get_device_capability", lambda device: (10, 0)), "capability 10.0 .*9.0 are"),
        (lambda m: m.setattr(torch.version, "cuda", "14.0"), "CUDA 14.0 is not known"),
        (lambda m: m.setattr(torch.version, "hip", "6.2"), r"cuda:0 \(ROCm\) is not known"),
        (lambda m: m.setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "1"), "CUBLAS_EMULATE_DOUBLE_PRECISION='1': unset it"),
        (lambda m: m.setenv("CUBLAS_EMULATION_STRATEGY", "eager"), "CUBLAS_EMULATION_STRATEGY"),
        (blas("Ck"), "preferred_blas_library.. is Ck"),
        (lambda m: m.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda"), "autocast is on for CUDA"),
    ],
)
def test_what_is_unknown_or_excluded_is_refused(gpu: pytest.MonkeyPatch, change: Any, named: str) -> None:
    change(gpu)
    with pytest.raises(UnsoundSettingError, match=named):
        check_device(CUDA)


@pytest.mark.parametrize("kind", ["meta", "mps", "xpu"])
def test_other_kinds_of_device_are_refused(kind: str) -> None:
    with pytest.raises(UnsoundSettingError, match=f"float64 arithmetic of {kind} is not known here"):
        check_device(torch.device(kind))


def test_the_arithmetic_is_asked_once_and_a_refusal_remembered(gpu: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    gpu.setattr(device_probe, "probe_arithmetic", asked.append)
    assert refused(CUDA) is None
    assert refused(CUDA) is None
    assert len(asked) == 1

    def wrong(move: object) -> None:
        raise UnsoundSettingError("float64 matrix product: gave 1.0")

    proof_device._arithmetic_refused.cache_clear()
    gpu.setattr(device_probe, "probe_arithmetic", wrong)
    assert refused(CUDA) == "cuda:0: float64 matrix product: gave 1.0"
    gpu.setattr(device_probe, "probe_arithmetic", asked.append)
    with pytest.raises(UnsoundSettingError, match=r"gave 1\.0"):
        check_device(CUDA)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: it answers itself")
def test_a_device_that_fails_to_answer_is_refused(gpu: pytest.MonkeyPatch) -> None:
    assert (refused(CUDA) or "").startswith("cuda:0: ")


def test_cudnn_is_off_during_proofs_on_a_gpu_and_as_before_afterwards() -> None:
    before = torch.backends.cudnn.enabled
    with plain_sums(torch.device("cpu")):
        assert torch.backends.cudnn.enabled == before
    with plain_sums(CUDA):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled == before
