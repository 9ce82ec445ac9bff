"""The rules of level `float32-deployed`: every interval holds the activations of the real-valued network *and* those
that its float32 program computes, for every float32 input in the box, in any summation order, with or without FMA.

u = 2^-53 and k as in `real_sound.py`; U = 2^-24 is the unit roundoff of float32,
q = g32(n + 2) = (n + 2)U / (1 - (n + 2)U).

**Assumed of the program's kernels**: each output is a sum of the n products and the bias, in any order, in float32 or
wider, each operation rounded to nearest with gradual underflow or flush-to-zero. (Not Winograd, FFT, Strassen, TF32,
bf16, fp16, quantised; `preconditions.check_backend` refuses the settings under which torch may use those.)

**Input and Normalize.** x' is any float32 in the box, so the box itself serves. fl32(fl32(x' - mean) / std) is
v (1 + e), v = (x' - mean)/std, |e| <= 2U + U^2 < 2^-22, plus at most 2 * 2^-126 / std + 2^-126 where x', x' - mean or
the result is flushed to zero: covered by s = 2^-124 max(1, 1/std). As v - |v| 2^-22 is increasing in v, both ends move
by 2^-22 of themselves and by s.

**Hidden affine step.** The program's input h lies in the box, so its output deviates from W h + b by at most
g32(n + 1)(|W||h| + |b|) + (2n + 1) 2^-125 (each of 2n + 1 operations may underflow by 2^-126, and the later roundings
at most double that); an h flushed to zero on being read moves by at most 2^-126. So k + q takes the place of k in
k(|m| + r) and k|b|, 2^-126 is added to the radius and (2n + 2) 2^-125 to the deviation. (q may be as large as 1; the
float64 roundings of r then lose 4uq more than `real_sound.py` counts, but q has U to spare, as g32(n + 1) would do.)
*Overflow*: with a = max(|lo|, |hi|), no partial sum exceeds (1 + q)(a max sum|W| + max|b|) < 2^127 provided that
a max sum|W| + max|b| <= 2^126.

**Average pooling**: an affine step with n = kh kw and one more rounding in q (a kernel may multiply by fl32(1/n)). The
sum is formed before the division, so the overflow guard takes sum|W| = n.
**Add**: one rounding, 2^-24 |a + b|, and three possible flushes of which at most two happen: 2^-23 |a + b| + 2^-125 at
each end. **ReLU, max pooling and rearrangements** are exact; a flush there is that of the next step's input.
**Sigmoid and tanh**: assumed is that the program's value is within 2^-20, relatively, and 2^-125, absolutely, of the
function's at the float32 argument that it was given: 8 units in the last place, where the vector libraries of torch
promise 1 to 4 (a test looks at them). An argument flushed to zero moves the value by at most 2^-126. As both functions
are monotone, the ends of the real enclosure, moved by as much, hold the program's values, monotone or not.
**Sign** jumps at 0, so an argument flushed to zero on being read counts: both ends are moved by 2^-126 before it. (A
difference of two floats is 0 only where they are equal, gradual underflow being checked.)
**BatchNorm** is refused: how a program evaluates it is not fixed.
Normalize and Add are guarded too: every end they give is at most 2^126.

**Head.** The program computes f_y and f_t separately: their errors are relative to |W_y| and |W_t|, not to |W_y - W_t|.
With H = (|W|(|m| + r) + |b|)(1 + k) each logit is off by at most q H + (2n + 2) 2^-125, hence
    lower_t - q(H_y + H_t) - (2n + 2) 2^-123
bounds the difference of the float32 logits, lower_t being the real-sound bound with 2^-126 added to the radius (flushed
inputs). It is positive only if the float32 argmax is y. A float32 softmax is another matter.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.directed_rounding import U32, down, gamma, up
from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.margin_rows import MarginRows, by_label
from acert_zoo.bounds.real_sound import (
    AffineMap,
    RealSound,
    Terms,
    add_boxes,
    center_radius,
    normalize_box,
    per_channel,
    real_sound_terms,
)
from acert_zoo.network.layers import Linear, Normalize

LARGEST = 2.0**126  # nothing the program adds up may exceed it
FLUSH = 2.0**-126  # the smallest normal float32: what flush-to-zero may lose
UNDERFLOW = 2.0**-125  # what one operation of a sum may lose to underflow, with the later roundings of that
NORMALIZE_ERROR = 2.0**-22  # two roundings: (1 + U)^2 - 1 = 2U + U^2
NORMALIZE_FLUSH = 2.0**-124  # x', x' - mean and the result may be flushed; the first two are divided by std
ADD_ERROR = 2.0**-23  # one rounding, U |a + b|, and that of our own end
FUNCTION_ERROR = 2.0**-20  # of the program's sigmoid and tanh: 8 units in the last place, assumed
FUNCTION_FLUSH = 2.0**-124  # what they may lose where their argument or value is flushed
LOGITS_UNDERFLOW = 2.0**-123  # of two logits, each 2^-125 an operation, doubled for the roundings of the difference
LOGITS_LOOSE = 2.0**-40  # above the roundings of the error's own operations


def deployed_terms(n: int, depth: int, constant: float, *, pooling: bool = False) -> Terms:
    """Terms of a hidden affine step with inner length n; `constant` multiplies the float64 terms alone.

    The program may sum in any order, so q depends on n; `depth` is that of our own evaluation.
    """
    real, q = real_sound_terms(depth, constant), gamma(n + (3 if pooling else 2), U32)
    return Terms(
        mid=real.mid + q,
        rad=real.rad + q,
        dev=real.dev,
        bias=real.bias + q,
        tiny=real.tiny + FLUSH,
        floor=(2 * n + 2) * UNDERFLOW,
    )


def fits(x: Interval, largest_sum: float = 1.0, largest_bias: float = 0.0) -> Tensor:
    """[N] bool: no value formed by the program from this box exceeds 2^126 (False for NaN)."""
    largest = torch.maximum(x.upper.flatten(1).amax(1), -x.lower.flatten(1).amin(1))
    return largest * largest_sum + largest_bias <= LARGEST


def widen(x: Interval, relative: float, absolute: Tensor | float) -> Interval:
    """Both ends moved outward by `relative` of themselves, then by `absolute`."""
    return Interval(
        down(down(x.lower - relative * x.lower.abs()) - absolute),
        up(up(x.upper + relative * x.upper.abs()) + absolute),
    )


def logit_error(h: Tensor, label: int, n: int) -> Tensor:
    """At most how far the float32 f_y - f_t can be from its real value, [N, K], from H [N, K]."""
    q = gamma(n + 2, U32)
    return (q * (h[:, label : label + 1] + h)) * (1 + LOGITS_LOOSE) + (2 * n + 2) * LOGITS_UNDERFLOW


class Float32Deployed(RealSound):
    """See the module's docstring."""

    def terms(self, n: int, depth: int, *, pooling: bool = False) -> Terms:
        return deployed_terms(n, depth, self.constant, pooling=pooling)

    def affine(self, step: AffineMap, x: Interval, alive: Tensor, *, nonnegative: bool = False) -> Interval:
        alive &= fits(x, step.largest_sum, step.largest_bias)
        return super().affine(step, x, alive, nonnegative=nonnegative)

    def normalize(self, step: Normalize, x: Interval, alive: Tensor) -> Interval:
        mean, std = per_channel(step.mean, x.lower), per_channel(step.std, x.lower)
        out = widen(normalize_box(x, mean, std), NORMALIZE_ERROR, NORMALIZE_FLUSH * torch.clamp(1 / std, min=1.0))
        alive &= fits(out) & bool((mean.abs() <= LARGEST).all())
        return out

    def add(self, a: Interval, b: Interval, alive: Tensor) -> Interval:
        out = widen(add_boxes(a, b), ADD_ERROR, UNDERFLOW)
        alive &= fits(a) & fits(b) & fits(out)
        return out

    def sign(self, x: Interval, alive: Tensor) -> Interval:
        alive &= fits(x)
        return Interval((x.lower - FLUSH).sign(), (x.upper + FLUSH).sign())

    def function(self, enclose: Callable[..., Interval], x: Interval, alive: Tensor) -> Interval:
        alive &= fits(x)
        return enclose(x, FUNCTION_ERROR, FUNCTION_FLUSH)


class DeployedMarginRows(MarginRows):
    """Margins of the float32 logits."""

    def __init__(self, head: Linear, constant: float) -> None:
        super().__init__(head, constant)
        self.absolute, self.abs_bias = self.weight.abs(), self.bias.abs()
        self.largest_sum, self.largest_bias = float(self.absolute.sum(1).max()), float(self.abs_bias.max())
        self.n = head.inner_length

    def make_terms(self, n: int, constant: float) -> Terms:
        real = real_sound_terms(n, constant)
        return Terms(mid=real.mid, rad=real.rad, dev=real.dev, bias=real.bias, tiny=real.tiny + FLUSH)

    def lower(self, x: Interval, labels: Tensor, alive: Tensor) -> Tensor:
        alive &= fits(x, self.largest_sum, self.largest_bias)
        out = super().lower(x, labels, alive)
        m, r = center_radius(x, self.terms)
        h = F.linear(m.abs_().add_(r).add_(FLUSH), self.absolute, self.abs_bias).mul_(1 + self.terms.dev)
        for label, chosen in by_label(labels):
            out[chosen] = down(out[chosen] - up(logit_error(h[chosen], label, self.n)))
        return out
