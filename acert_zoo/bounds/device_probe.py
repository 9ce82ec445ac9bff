"""Whether a device computes in float64 what the rules of `real_sound.py` assume: asked by sums whose result is known.

A probe cannot show that a device always rounds as IEEE 754 says. It refuses one that visibly does not: products in
TF32, float32 or bfloat16, products put together from narrower ones (fixed-point emulation, whose errors are relative to
the largest number of a row), convolutions by Winograd or FFT, products by Strassen, truncated sums, NaN that vanishes.
Expected values come from Python's integers and floats, never from the device. Each operation that the rules use is
asked, and at the end each layer of the network itself at its own size, since libraries choose kernels by size.

**Known results.** Products of integers, few enough bits that every partial sum is exact: then all orders of summation
agree. Factors 2^e and 2^-e at both sides of a product change nothing of that, but spread the operands over 2^+-300:
whatever adds or scales operands before it multiplies loses them. A sum of two numbers among zeros is rounded once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import RealSound
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Affine, AvgPool, Conv, Linear

Move = Callable[[Tensor], Tensor]  # a tensor of the CPU to the device

_SPREAD = 300  # operands are 2^-300 to 2^300 times an integer
# (m, n, k) of an m x k by k x n product: a number, vectors, odd sizes, and what libraries have fast kernels for
_PRODUCTS = ((1, 1, 1), (1, 64, 300), (64, 1, 300), (3, 5, 7), (33, 17, 144), (128, 128, 144), (64, 256, 576))
_BATCHES = (2, 9)  # images, of the layers of a network: both ways of evaluating a layer
_NUMBERS = (
    0.0, -0.0, 1.0, -1.0, 1 + 2.0**-52, 1 - 2.0**-53, 3.0, 1 / 3, 0.1, -2.7, 2.0**-53, -(2.0**-54), 2.0**53 + 2,
    2.0**-1022, -(2.0**-1074), 1.5 * 2.0**-1030, 2.0**-500, 1e200, 2.0**1023, -1.7976931348623157e308, math.inf,
    -math.inf, math.nan,
)  # fmt: skip


def probe_arithmetic(move: Move) -> None:
    """Asks a device for every kind of float64 operation that a proof uses.

    Args:
        move: takes a tensor of the CPU to the device.

    Raises:
        UnsoundSettingError: a result is not the one that IEEE 754 gives; its operation is named.
    """
    for name, found, expected in (*_elementwise(move), *_products(move), *_convolutions(move)):
        _compare(name, found, expected)


def probe_network(network: Network, images: Tensor, move: Move) -> None:
    """Asks a device for the sums of every layer of `network` (float64, on the CPU), with integers for weights.

    Args:
        images: float32 [N, C, H, W], N >= 1; only their shape counts.

    Raises:
        UnsoundSettingError: see `probe_arithmetic`.
    """
    values, sums = network.run(images[:1].double()), RealSound()
    for step in network.steps:
        if not isinstance(step, (Affine, AvgPool)):
            continue
        shape = values[step.inputs[0]].shape[1:]
        for count in _BATCHES:
            x, asked, expected = _layer(step, (count, *shape))
            if isinstance(asked, Affine):
                asked = dataclasses.replace(asked, weight=move(asked.weight), bias=move(asked.bias))
            name, there, prepared = (
                f"{type(step).__name__} {step.name!r} of {count} images",
                move(x),
                sums.prepare(asked),
            )
            _compare(name, prepared.center(there), expected)
            if prepared.nonnegative is not None:  # the other way: (W/2)(x + x)
                _compare(name, prepared.nonnegative.center(Interval(there, there), 1.0), expected)


def _compare(name: str, found: Tensor, expected: Tensor) -> None:
    """Bit for bit, signs of zeros and kinds of NaN apart."""
    found = found.cpu()
    if found.dtype != torch.float64 or found.shape != expected.shape:
        raise UnsoundSettingError(f"float64 {name}: gave {found.dtype} {tuple(found.shape)}")
    wrong = ~((found == expected) | (found.isnan() & expected.isnan()))
    if bool(wrong.any()):
        got, want = float(found[wrong][0]), float(expected[wrong][0])
        raise UnsoundSettingError(f"float64 {name}: gave {got!r} where IEEE 754 arithmetic gives {want!r}")


def _elementwise(move: Move) -> Iterator[tuple[str, Tensor, Tensor]]:
    pairs = [(a, b) for a in _NUMBERS for b in _NUMBERS]
    first, second = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    x, y = move(first), move(second)
    results: dict[str, tuple[Tensor, Callable[[float, float], float]]] = {
        "addition": (x + y, lambda a, b: a + b),
        "subtraction": (x - y, lambda a, b: a - b),
        "multiplication": (x * y, lambda a, b: a * b),
        "division": (x / y, _quotient),
        "nextafter": (torch.nextafter(x, y), math.nextafter),
        "maximum": (torch.maximum(x, y), lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else max(a, b)),
        "relu": (torch.relu(x), lambda a, b: a if math.isnan(a) else max(a, 0.0)),
        "clamp": (x.clamp(0.0, 1.0), lambda a, b: a if math.isnan(a) else min(max(a, 0.0), 1.0)),
        "comparison": ((x > y).double(), lambda a, b: float(a > b)),
    }
    for name, (found, exact) in results.items():
        yield name, found, torch.tensor([exact(a, b) for a, b in pairs], dtype=torch.float64)
    roots = torch.tensor([math.sqrt(abs(a)) for a, _ in pairs], dtype=torch.float64)
    root = x.abs().sqrt().cpu()  # one unit in the last place is allowed: vector libraries of CPUs do no better
    near = (root - roots).abs() <= 2.0**-52 * roots
    yield "square root", torch.where(near, roots, root), roots
    tiny = [1.0, 2.0**-126, 2.0**-149, -3 * 2.0**-149, 2.0**127]
    yield "conversion of float32", move(torch.tensor(tiny)).double(), torch.tensor(tiny, dtype=torch.float64)


def _quotient(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if math.isnan(a) or a == 0 else math.inf * math.copysign(1.0, a) * math.copysign(1.0, b)


def _integers(shape: tuple[int, ...], bits: int, seed: int) -> Tensor:
    """float64 integers between -2^bits and 2^bits, without the operations of a device."""
    drawn = torch.randint(-(2**bits), 2**bits + 1, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.double()


def _spread(length: int, seed: int) -> Tensor:
    """Powers of two, float64 [length]."""
    exponents = torch.randint(-_SPREAD, _SPREAD, (length,), generator=torch.Generator().manual_seed(seed))
    return torch.tensor([2.0**e for e in exponents.tolist()], dtype=torch.float64)


def _exact_bits(k: int) -> int:
    """Bits of integers of which k products add up exactly, with a bias to spare."""
    return (51 - (k + 1).bit_length()) // 2


def _products(move: Move) -> Iterator[tuple[str, Tensor, Tensor]]:
    for seed, (m, n, k) in enumerate(_PRODUCTS):
        a, b, c = (_integers(s, _exact_bits(k), 10 * seed + i) for i, s in enumerate([(m, k), (k, n), (n,)]))
        exact = (a.long() @ b.long()).double()
        s = _spread(k, seed)
        left, right, bias = move(a * s), move(b / s.unsqueeze(1)), move(c)
        name = f"product of {m} x {k} and {k} x {n}"
        yield f"matrix {name}", left @ right, exact
        yield f"linear {name}", F.linear(left, right.t().contiguous(), bias), exact + c
        yield f"batched {name}", torch.bmm(left.expand(3, m, k), right.expand(3, k, n)), exact.expand(3, m, n)
        yield f"added {name}", bias.repeat(m, 1).addmm_(left, right), exact + c
        out = torch.empty_like(left @ right)
        yield f"given {name}", torch.mm(left, right, out=out), exact
        yield f"sum of {m} x {k}", move(a).sum(1), a.long().sum(1).double()
        if k > 1:
            yield f"rounding in a {name}", *_rounded(m, n, k, move)
    clash = torch.zeros(4, 40, dtype=torch.float64)
    clash[0, 3], clash[1, 5], clash[2, 7], clash[2, 9], clash[3, 0] = math.inf, math.nan, math.inf, -math.inf, 1e300
    column = torch.ones(40, 1, dtype=torch.float64) * 1e10
    expected = torch.tensor([[math.inf], [math.nan], [math.nan], [math.inf]], dtype=torch.float64)
    yield "product of infinities", move(clash) @ move(column), expected


def _rounded(m: int, n: int, k: int, move: Move) -> tuple[Tensor, Tensor]:
    """Two terms a row among zeros, at places that change: one rounding, to nearest and to even."""
    small = (2.0**-53, -(2.0**-54), 2.0**-53 + 2.0**-100, -(2.0**-60), 3 * 2.0**-54, 2.0**-70, -(2.0**-53), 1 / 3)
    left = torch.zeros(m, k, dtype=torch.float64)
    expected = torch.zeros(m, n, dtype=torch.float64)
    for i in range(m):
        large, term = 1.0 + (i % 3) * 2.0**-52, small[i % len(small)]
        at, other = i % k, (7 * i + 1) % k
        left[i, at], left[i, other if other != at else (at + 1) % k] = large, term
        expected[i] = large + term
    return move(left) @ move(torch.ones(k, n, dtype=torch.float64)), expected


def _convolutions(move: Move) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Kernels with one weight that is not 0: every output is one product, whatever stands beside it."""
    for kernel, groups in ((3, 1), (3, 2), (5, 4), (3, 8)):
        x = _integers((2, 8, 12, 12), 25, kernel) * _spread(2 * 8 * 144, groups).view(2, 8, 12, 12)
        weight = torch.zeros(8, 8 // groups, kernel, kernel, dtype=torch.float64)
        expected = torch.zeros(2, 8, 13 - kernel, 13 - kernel, dtype=torch.float64)
        for o in range(8):
            c, i, j = o % (8 // groups), o % kernel, (o // 2) % kernel
            weight[o, c, i, j] = 2 * o - 7
            source = x[:, o // (8 // groups) * (8 // groups) + c]
            expected[:, o] = source[:, i : i + 13 - kernel, j : j + 13 - kernel] * (2 * o - 7)
        found = F.conv2d(move(x), move(weight), groups=groups)
        yield f"convolution, {kernel} x {kernel} in {groups} groups", found, expected
    x = 4 * _integers((2, 3, 8, 8), 40, 1)
    means = sum(x[:, :, i::2, j::2].long() for i in (0, 1) for j in (0, 1)).double() / 4  # type: ignore[union-attr]
    yield "average pooling", F.avg_pool2d(move(x), 2), means
    maxima = x.view(2, 3, 4, 2, 4, 2).amax((3, 5))
    x[1, 2, 5, 4], maxima[1, 2, 2, 2] = math.nan, math.nan
    yield "max pooling", F.max_pool2d(move(x), 2), maxima


def _layer(step: Affine | AvgPool, shape: tuple[int, ...]) -> tuple[Tensor, Affine | AvgPool, Tensor]:
    """(input, the step with integers for weights, what it gives): exact in every order of summation."""
    n = step.inner_length
    if isinstance(step, AvgPool):
        x = n * _integers(shape, 20, 1)
        return x, step, step(x)
    bits = _exact_bits(n)
    x, weight, bias = (_integers(s, bits, i) for i, s in enumerate((shape, tuple(step.weight.shape), step.bias.shape)))
    asked = dataclasses.replace(step, weight=weight, bias=bias)
    expected = asked(x)
    if isinstance(step, (Conv, Linear)):
        groups = step.groups if isinstance(step, Conv) else 1
        scale = _spread(weight.shape[1], 3)
        view = (1, -1) + (1,) * (x.dim() - 2)
        x = x * scale.repeat(groups).view(view)
        asked = dataclasses.replace(asked, weight=weight / scale.view((1, -1) + (1,) * (weight.dim() - 2)))
    return x, asked, expected
