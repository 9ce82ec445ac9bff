"""What must hold before a rounding-sound bound means anything; each check raises an error that names what is wrong.

`check_network` looks at a network's numbers, `check_backend` at the settings of torch. That a module is in eval mode is
checked where it becomes a network (`acert_zoo/network/reading.py`).
"""

from __future__ import annotations

import dataclasses
import os
import platform
from contextlib import suppress
from functools import lru_cache

import torch
from torch import Tensor

from acert_zoo.bounds.directed_rounding import U64
from acert_zoo.bounds.rigorous_rules import level_of
from acert_zoo.errors import UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import BatchNorm, Normalize
from acert_zoo.rounding import RoundingLevel, proved_level

REAL_SOUND, DEPLOYED = RoundingLevel.REAL_SOUND, RoundingLevel.FLOAT32_DEPLOYED

# Stricter than the (2n + 16) u < 1 without which no bound exists: the derivations use g(n + 16) <= 2^-27.
LARGEST_SUM_ERROR = 2.0**-27
LONGEST_DEPLOYED_SUM = 2**23  # q = g32(n + 2) must stay below 1
LARGEST_EPSILON = 2.0**100  # of a BatchNorm, so that 1 / sqrt(var + epsilon) is at least 2^-64 (see real_sound.py)
SMALLEST_VARIANCE = 1e-200  # of a BatchNorm, epsilon included: its root and quotient stay normal numbers
_ONEDNN_MATH_MODES = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")


def check_network(network: Network, rounding: str) -> None:
    """Checks that rounding level `rounding` can be claimed for this network.

    Raises:
        UnsupportedLayerError: a step without a rule at this level (BatchNorm at float32-deployed: fold it first).
        UnsoundSettingError: a tensor that is not float32 on the CPU or not finite; std <= 0; a variance below 0; an
            inner length n with (2n + 16) u >= 2^-27; at float32-deployed also n + 2 >= 2^23 and subnormals.
    """
    rules = level_of(rounding).rules
    for index, step in enumerate(network.steps):
        name = f"step {index} ({step.name or type(step).__name__})"
        if step not in rules:
            raise UnsupportedLayerError(rules.refusal(step))
        n = step.inner_length
        if (2 * n + 16) * U64 >= LARGEST_SUM_ERROR or (rounding == DEPLOYED and n + 2 >= LONGEST_DEPLOYED_SUM):
            raise UnsoundSettingError(f"{name}: {n} products per output are too many for the rounding bounds")
        for field in dataclasses.fields(step):
            value = getattr(step, field.name)
            if isinstance(value, Tensor):
                _check_tensor(value, f"{name}: {field.name}", rounding)
        if isinstance(step, Normalize) and not bool((step.std > 0).all()):
            raise UnsoundSettingError(f"{name}: std must be > 0, is {step.std.tolist()}")
        if isinstance(step, BatchNorm) and not (
            0 <= step.epsilon < LARGEST_EPSILON
            and bool((step.var >= 0).all())
            and float(step.var.min()) + step.epsilon > SMALLEST_VARIANCE
        ):
            raise UnsoundSettingError(f"{name}: needs var >= 0, epsilon >= 0 and var + epsilon > 0, epsilon < 2^100")


def _check_tensor(t: Tensor, name: str, rounding: str) -> None:
    if t.dtype != torch.float32:
        raise UnsoundSettingError(f"{name} is {t.dtype}; the claim is about stored float32 weights")
    if t.device.type != "cpu" or t.layout != torch.strided:
        raise UnsoundSettingError(
            f"{name} is a {t.layout} tensor on {t.device}; rigorous bounds run on dense CPU tensors"
        )
    if not bool(torch.isfinite(t).all()):
        raise UnsoundSettingError(f"{name} holds values that are not finite")
    if rounding == DEPLOYED and bool(has_subnormal(t)):
        raise UnsoundSettingError(
            f"{name} holds subnormal float32 values, which a program may flush to zero; set them to 0, or use "
            f"{REAL_SOUND}"
        )


def has_subnormal(t: Tensor) -> Tensor:
    """Whether a float32 tensor holds a subnormal; by its bits, since a comparison may itself flush to zero."""
    magnitude = t.detach().view(torch.int32) & 0x7FFFFFFF
    return ((magnitude > 0) & (magnitude < 0x00800000)).any()


def check_backend(rounding: str) -> None:
    """Checks the settings of torch under which rounding level `rounding` can be claimed.

    real-sound relies only on this process's float64 arithmetic: no autocast, subnormals kept.
    float32-deployed is a claim about the float32 CPU program, so also: x86-64, oneDNN on or NNPACK off (NNPACK's
    convolutions are Winograd), float32 products in full precision.

    Raises:
        UnsoundSettingError: naming the setting and the value it needs.
    """
    proved_level(rounding)
    if torch.is_autocast_enabled("cpu"):
        raise UnsoundSettingError("autocast is on for the CPU; certify outside torch.autocast")
    if flushes_subnormals():
        raise UnsoundSettingError("subnormal numbers are flushed to zero; call torch.set_flush_denormal(False)")
    if rounding != DEPLOYED:
        return
    if platform.machine().lower() not in ("x86_64", "amd64"):
        raise UnsoundSettingError(f"{DEPLOYED} is claimed on x86-64 CPUs only, this is {platform.machine()!r}")
    if not _mkldnn_on() and _nnpack_on():
        raise UnsoundSettingError(
            "oneDNN is off, so float32 convolutions may go to NNPACK, whose Winograd kernels are outside the bound; "
            "set torch.backends.mkldnn.enabled = True or torch.backends.nnpack.set_flags(False)"
        )
    for name in _ONEDNN_MATH_MODES:
        if os.environ.get(name, "").strip().upper() not in ("", "STRICT"):
            raise UnsoundSettingError(f"environment variable {name}={os.environ[name]!r}; unset it or use STRICT")
    for name, value in _float32_precisions().items():
        if value not in ("none", "ieee", "highest"):
            raise UnsoundSettingError(
                f"{name} is {value!r}; it must be 'ieee' or 'none' ('highest' for matmul precision)"
            )


def deployed_claimable() -> bool:
    """Whether the settings of torch allow claims about the float32 program: its products are plain sums."""
    try:
        check_backend(DEPLOYED)
    except UnsoundSettingError:
        return False
    return True


def flushes_subnormals() -> bool:
    """Whether float32 subnormals vanish on their way to float64, in any of torch's threads."""
    return not bool((_subnormals(torch.get_num_threads()).double() == 2.0**-149).all())


@lru_cache(maxsize=1)
def _subnormals(threads: int) -> Tensor:
    """So many times 2^-149 in float32, written as integers, that every thread converts some of them."""
    return torch.ones(threads * 32768, dtype=torch.int32).view(torch.float32)


def _mkldnn_on() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def _nnpack_on() -> bool:
    return bool(torch.backends.nnpack.is_available() and torch._C._get_nnpack_enabled())


def _float32_precisions() -> dict[str, str]:
    """Every setting that may replace float32 products on the CPU by narrower ones (the newer ones where they exist)."""
    found: dict[str, str] = {}
    try:
        found["torch.get_float32_matmul_precision()"] = torch.get_float32_matmul_precision()
    except RuntimeError as error:  # torch refuses to answer where its old and new settings contradict each other
        found["torch.get_float32_matmul_precision()"] = str(error).splitlines()[0]
    places = {"torch.backends": torch.backends, "torch.backends.mkldnn": torch.backends.mkldnn}
    for part in ("conv", "matmul"):
        with suppress(AttributeError):
            places[f"torch.backends.mkldnn.{part}"] = getattr(torch.backends.mkldnn, part)
    for name, place in places.items():
        with suppress(AttributeError):
            found[f"{name}.fp32_precision"] = place.fp32_precision
    return found
