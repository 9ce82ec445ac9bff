"""The affine rule of `real_sound.py` for convolutions of boxes with lo >= 0, those that come out of a ReLU: fewer
passes.

Centre and radius need not be formed by themselves: sums of lo and hi are, on their way into the padded input, and
constant factors move into the weights. Notation, k and tiny as in `real_sound.py`; K = k - u.
    M = fl(hi + lo),    D = fl(hi - b lo),    b = 1 - 2k - 10u,
    c = fl((W/2) M + bias),    d = fl(A D + t),    A = |W| (1 + 2k + 8u)(1 + k)/2, rounded up
and lo' = fl(c - d), hi' = fl(c + d), t >= k|bias| + tiny sum|W| as there.

*Proof.* W/2 is exact, so c is the centre rule at m = M/2, and any m serves. With M = (hi + lo)(1 + e), |e| <= u, the
radius about m is rho <= (hi - lo)/2 + u hi, and |m| + rho <= hi (1 + 2u). So
    2 (rho + K(|m| + rho)) <= s hi - lo,    s = 1 + 2K + 2u + 4uK.
D loses at most 2.01u hi to its two roundings (one with FMA). With v = 1 + 2k + 8u: v - s >= 8u - 4uK >= 2.01u v and
v b <= 1, hence v D >= s hi - lo. So without the roundings of its own, A D >= (1 + k)|W|(rho + K(|m| + rho)), as
`real_sound.py` has it for its (1 + k)|W| r, and what follows there holds here:
(1 + k)(1 - g(L + 1))(1 - u)^3 >= 1 + 10u makes up for the product's roundings and leaves the rest; t, now the first
summand of d, passes through L + 1 of them, which the 2^-20 in it (see `slack`) covers. M and D miss 2^-1021 by
underflow, flush-to-zero included: tiny sum|W| covers that. The computed b and v are off by u, which the margins above
allow for. QED
Written with k + q for k (terms.mid) the same holds for float32-deployed, as v b <= 1 for every k > 0; v < 1.1 is
required: k <= 1/32. The output exceeds the exact image by at most 3k (|W| hi + |bias|) + |W| 2^-799.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from acert_zoo.bounds.blocked_sums import output_size
from acert_zoo.bounds.directed_rounding import U64
from acert_zoo.bounds.ibp import Interval
from acert_zoo.network.layers import Conv

FEWEST_IMAGES = 3
RUN = 192  # products that are added to one partial sum
_CHANNELS, _PRODUCTS = 16, 288  # fewer, and products without unfolding are too small to be efficient


def suits(step: Conv) -> bool:
    """Whether this way is the faster one for a convolution of at least `FEWEST_IMAGES` images."""
    return step.groups == 1 and step.weight.shape[1] >= _CHANNELS and step.inner_length >= _PRODUCTS


def shifted_depth(step: Conv) -> int:
    """The depth of `_shifted`: one run, whose products BLAS may add one by one, then the runs and the bias."""
    channels, height, width = step.weight.shape[1:]
    places = min(max(1, RUN // channels), height * width)
    return places * channels + -(-height * width // places)


class Nonnegative:
    """c and d of a convolution that `suits`, float64.

    Args:
        slack: t, one number for each output channel.
        k: of k|m| and of k r, the larger one. deviation: k of k d.
    """

    def __init__(self, step: Conv, slack: Tensor, k: float, deviation: float) -> None:
        self.shrink = 1 - 2 * k - 10 * U64
        factor = (1 + 2 * k + 8 * U64) * (1 + deviation) / 2 * (1 + 8 * U64)
        self.center = _shifted(step, step.weight / 2, step.bias)
        self.spread = _shifted(step, step.weight.abs() * factor, slack)

    def __call__(self, x: Interval) -> tuple[Tensor, Tensor]:
        return self.center(x, 1.0), self.spread(x, -self.shrink)


def _shifted(step: Conv, weight: Tensor, start: Tensor) -> Callable[[Interval, float], Tensor]:
    """(x, factor) -> start + weight * (x.upper + factor x.lower), with the batch axis last in memory.

    One product for each place (i, j) of the kernel: weight[:, :, i, j] times a window of the padded input, uncopied.
    With a pitch of P places a row, output (r, c) meets place (r + i, c + j), which in a flat row-major layout lies
    i P + j further on: so a product is that of a matrix and a range of columns. Its columns with c beyond the output's
    width belong to no window and are cropped. Of a stride s every s-th row and column is kept, for each remainder.
    """
    outputs, _, *kernel = weight.shape
    places = [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]
    blocks = [weight[:, :, i, j].contiguous() for i, j in places]
    run = max(1, RUN // weight.shape[1])
    start = start.view(-1, 1)

    def apply(x: Interval, factor: float) -> Tensor:
        count = len(x.lower)
        height, width = output_size(step, x.lower)
        planes, pitch = _planes(step, x, factor)
        out = start.expand(outputs, height * pitch * count).contiguous()
        sums = out[:, : ((height - 1) * pitch + width) * count]
        part = sums if len(places) <= run else torch.empty_like(sums)
        for index, (place, weights) in enumerate(zip(places, blocks, strict=True)):
            moved = zip(step.dilation, place, step.stride, strict=True)
            (i, down), (j, right) = (divmod(dilation * at, stride) for dilation, at, stride in moved)
            begin = (i * pitch + j) * count
            columns = planes[down][right][:, begin : begin + sums.shape[1]]
            if index < run:
                sums.addmm_(weights, columns)
            elif index % run == 0:
                torch.mm(weights, columns, out=part)
            else:
                part.addmm_(weights, columns)
            if (index >= run and (index + 1) % run == 0) or index + 1 == len(places) > run:
                sums.add_(part)
        return out.view(outputs, height, pitch, count)[:, :, :width].permute(3, 0, 1, 2)

    return apply


def _planes(step: Conv, x: Interval, factor: float) -> tuple[list[list[Tensor]], int]:
    """x.upper + factor x.lower, padded: for each remainder of row and column its places, [C, rows P N]; and P.

    Without a stride the zeros right of a row are those left of the next one: fewer columns to multiply.
    """
    (count, channels, *size) = x.lower.shape
    low, high = x.lower.permute(1, 2, 3, 0), x.upper.permute(1, 2, 3, 0)
    rows, pitch = (-(-(n + 2 * pad) // s) for n, pad, s in zip(size, step.padding, step.stride, strict=True))
    shared = step.padding[1] if step.stride[1] == 1 else 0
    pitch -= shared
    planes: list[list[Tensor]] = []
    for i in range(step.stride[0]):
        planes.append([])
        for j in range(step.stride[1]):
            flat = high.new_empty(channels, rows * pitch + shared, count)
            flat[:, rows * pitch :].zero_()
            plane = flat[:, : rows * pitch].view(channels, rows, pitch, count)
            pick, inside = [slice(None)], [slice(None)]
            for axis, (at, n, pad, s) in enumerate(zip((i, j), size, step.padding, step.stride, strict=True), start=1):
                first = (at - pad) % s  # of the unpadded places with this remainder
                taken, before = len(range(first, n, s)), (first + pad - at) // s
                pick.append(slice(first, None, s))
                inside.append(slice(before, before + taken))
                plane.narrow(axis, 0, before).zero_()
                plane.narrow(axis, before + taken, plane.shape[axis] - before - taken).zero_()
            torch.add(high[tuple(pick)], low[tuple(pick)], alpha=factor, out=plane[tuple(inside)])
            planes[-1].append(flat.flatten(1))
    return planes, pitch
