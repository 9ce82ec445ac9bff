"""The probe passes a CPU, and refuses stand-ins for devices that compute otherwise than the rules assume."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from acert_zoo.bounds.device_probe import probe_arithmetic, probe_network
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network.tracing import trace
from tests.support.models import SHAPE, small_model

PRODUCTS = ("matmul", "mm", "bmm", "addmm_", "linear", "conv2d", "__matmul__")
IMAGES = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
Fault = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def device(fault: Fault) -> Callable[[Tensor], Tensor]:
    """Moves tensors to a device of which `fault(name, function, arguments, options)` computes every operation."""

    class Elsewhere(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            with torch._C.DisableTorchFunctionSubclass():
                found = fault(getattr(func, "__name__", ""), func, args, kwargs or {})
            return found.as_subclass(Tensor if func is Tensor.cpu else cls) if isinstance(found, Tensor) else found

    return lambda t: t.clone().as_subclass(Elsewhere)


def honest(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def on_operands(change: Callable[[Tensor], Tensor], names: tuple[str, ...] = PRODUCTS) -> Fault:
    """`change` is done to what the operations called `names` read, and to what they give."""

    def fault(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name not in names or "out" in kwargs:
            return function(*args, **kwargs)
        return change(function(*(change(a) if isinstance(a, Tensor) else a for a in args), **kwargs))

    return fault


def to_bits(bits: int) -> Callable[[Tensor], Tensor]:
    """Float64 numbers cut to so many bits."""

    def cut(x: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp(torch.trunc(mantissa * 2.0**bits), exponent - bits)

    return cut


def fixed_point(x: Tensor) -> Tensor:
    """What emulation on integer units keeps: 60 bits below the largest number of the matrix."""
    unit = torch.ldexp(torch.ones((), dtype=torch.float64), torch.frexp(x.abs().max())[1] - 60)
    return torch.round(x / unit) * unit


def strassen(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One level of Strassen's algorithm, of even sizes."""
    if name not in ("matmul", "__matmul__") or any(n % 2 for n in (*args[0].shape, *args[1].shape)):
        return function(*args, **kwargs)
    (a, b), (c, d) = ([p for p in half.chunk(2, 1)] for half in args[0].chunk(2, 0))
    (e, f), (g, h) = ([p for p in half.chunk(2, 1)] for half in args[1].chunk(2, 0))
    m = [(a + d) @ (e + h), (c + d) @ e, a @ (f - h), d @ (g - e), (a + b) @ h, (c - a) @ (e + f), (b - d) @ (g + h)]
    top = torch.cat([m[0] + m[3] - m[4] + m[6], m[2] + m[4]], 1)
    return torch.cat([top, torch.cat([m[1] + m[3], m[0] - m[1] + m[2] + m[5]], 1)], 0)


def fft_convolution(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if name != "conv2d" or kwargs.get("groups", 1) != 1:
        return function(*args, **kwargs)
    x, weight = args
    size, kernel = x.shape[-1], weight.shape[-1]
    product = torch.fft.rfft2(x).unsqueeze(1) * torch.fft.rfft2(weight, s=(size, size)).conj()
    return torch.fft.irfft2(product.sum(2), s=(size, size))[..., : size - kernel + 1, : size - kernel + 1]


def without_nan(*names: str) -> Fault:
    def fault(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(part in name for part in names):
            args = tuple(a.nan_to_num(0.0) if isinstance(a, Tensor) else a for a in args)
        return function(*args, **kwargs)

    return fault


def flushing(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    found = function(*args, **kwargs)
    return torch.where(found.abs() < 2.0**-126, 0.0, found) if name == "double" else found


def truncated(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Sums (products by 1 alone) rounded towards zero, as some matrix units do."""
    found = function(*args, **kwargs)
    if name not in ("matmul", "__matmul__") or not bool((args[1] == 1).all()):
        return found
    for i, row in enumerate(args[0].tolist()):
        exact, rounded = sum(Fraction(x) for x in row if x), float(found[i, 0])
        if abs(Fraction(rounded)) > abs(exact):
            found[i] = math.nextafter(rounded, 0.0)
    return found


def test_the_cpu_passes() -> None:
    probe_arithmetic(lambda t: t)
    probe_arithmetic(device(honest))  # the stand-in itself changes nothing
    probe_network(trace(small_model()).detach().to(torch.float64), IMAGES, device(honest))


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (on_operands(to_bits(11)), ".*product"),  # TF32
        (on_operands(to_bits(24)), ".*product"),  # float32
        (on_operands(to_bits(48)), ".*product"),  # a few bits short
        (on_operands(fixed_point), ".*product"),
        (on_operands(to_bits(24), ("conv2d",)), "convolution"),
        (on_operands(to_bits(24), ("bmm",)), "batched"),
        (on_operands(to_bits(24), ("addmm_",)), "added"),
        (on_operands(to_bits(24), ("avg_pool2d",)), "average pooling"),
        (strassen, "matrix product"),
        (fft_convolution, "convolution"),
        (truncated, "rounding in a product"),
        (without_nan("relu"), "relu"),
        (without_nan("max_pool2d"), "max pooling"),
        (flushing, "conversion of float32"),
        (on_operands(lambda x: x.float().double(), ("add", "__add__")), "addition"),
        (on_operands(lambda x: x * (1 + 2.0**-52), ("div", "__truediv__")), "division"),
    ],
)
def test_a_device_that_computes_otherwise_is_refused_and_the_operation_named(fault: Fault, named: str) -> None:
    with pytest.raises(UnsoundSettingError, match=rf"float64 {named}.*: gave .* where IEEE 754 arithmetic gives"):
        probe_arithmetic(device(fault))


def test_float32_results_are_refused() -> None:
    with pytest.raises(UnsoundSettingError, match=r"gave torch\.float32"):
        probe_arithmetic(lambda t: t.float())


def test_a_kernel_that_is_wrong_at_a_layers_own_size_alone() -> None:
    """Libraries choose by size: what the fixed sizes do not show, the network's do."""
    network = trace(small_model()).detach().to(torch.float64)
    wide = network.head.weight.shape[1]

    def fault(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = function(*args, **kwargs)
        return to_bits(24)(found) if name == "linear" and args[0].shape[-1] == wide else found

    probe_arithmetic(device(fault))
    with pytest.raises(UnsoundSettingError, match="float64 Linear"):
        probe_network(network, IMAGES, device(fault))
