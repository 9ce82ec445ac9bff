"""Where float64 proofs run: the CPU, or a GPU that has been asked whether it computes as the rules assume.

What is assumed of each device, and what is excluded: docs/soundness.md. `check_device` looks at the settings that may
change float64 sums on it, then asks it for sums of known result (`device_probe.py`). Anything unknown - another kind of
device, a GPU or a library of another generation - is refused, and proofs stay on the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from acert_zoo.bounds import device_probe
from acert_zoo.errors import UnsoundSettingError

# Compute capabilities whose float64 units are IEEE 754 ones that cuBLAS uses as they are. Later generations have few of
# them, and libraries that put float64 products together from narrower ones: they are refused until that is looked into.
CAPABILITIES = ((6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0))
CUDA_VERSIONS = (11, 12, 13)
BLAS_LIBRARIES = ("Default", "Cublas", "Cublaslt")
_EMULATION = re.compile(r"(CUBLAS|CUDA|NVIDIA).*EMULAT.*", re.IGNORECASE)  # environment variables


def check_settings(device: torch.device) -> None:
    """Looks at what decides how `device` computes float64 sums.

    Raises:
        UnsoundSettingError: naming what is unknown or excluded, and what is accepted.
    """
    if device.type == "cpu":
        return  # `preconditions.check_backend`
    if device.type != "cuda" or torch.version.hip is not None or torch.version.cuda is None:
        raise UnsoundSettingError(f"float64 arithmetic of {_kind(device)} is not known here; of NVIDIA's GPUs it is")
    if (version := torch.version.cuda).split(".")[0] not in map(str, CUDA_VERSIONS):
        raise UnsoundSettingError(f"CUDA {version} is not known here; {', '.join(map(str, CUDA_VERSIONS))} are")
    capability = torch.cuda.get_device_capability(device)
    if capability not in CAPABILITIES:
        known = ", ".join(f"{major}.{minor}" for major, minor in CAPABILITIES)
        raise UnsoundSettingError(f"compute capability {capability[0]}.{capability[1]} is not known here; {known} are")
    for name, value in os.environ.items():
        if _EMULATION.fullmatch(name):
            raise UnsoundSettingError(f"environment variable {name}={value!r}: unset it, float64 may be emulated")
    library = str(torch.backends.cuda.preferred_blas_library()).rpartition(".")[2]
    if library not in BLAS_LIBRARIES:
        raise UnsoundSettingError(f"torch.backends.cuda.preferred_blas_library() is {library}; it must be cublas")
    if torch.is_autocast_enabled("cuda"):
        raise UnsoundSettingError("autocast is on for CUDA; certify outside torch.autocast")


def check_device(device: torch.device) -> None:
    """Checks that proofs may run on `device`: its settings each time, its arithmetic once a process.

    Raises:
        UnsoundSettingError: they may not, and why.
    """
    check_settings(device)
    if device.type != "cpu" and (reason := _arithmetic_refused(device)) is not None:
        raise UnsoundSettingError(reason)


def refused(device: torch.device) -> str | None:
    """Why proofs may not run on `device`, for people; None where they may."""
    try:
        check_device(device)
    except UnsoundSettingError as error:
        return str(error)
    return None


@cache
def _arithmetic_refused(device: torch.device) -> str | None:
    try:
        with plain_sums(device):
            device_probe.probe_arithmetic(lambda t: t.to(device))
    except (UnsoundSettingError, RuntimeError) as error:  # out of memory, an operation without a kernel, ...
        return f"{device}: {error}"
    return None


@contextmanager
def plain_sums(device: torch.device) -> Iterator[None]:
    """Convolutions without cuDNN, which may use FFT for float64: torch's own unfold and multiply, or sum directly."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def _kind(device: torch.device) -> str:
    return f"{device} (ROCm)" if torch.version.hip is not None else str(device)
