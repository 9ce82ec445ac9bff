"""The last layer: margins f_y - f_t through rows W_y - W_t, by the affine rule of `real_sound.py`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from acert_zoo.bounds.ibp import Interval
from acert_zoo.bounds.real_sound import Terms, center_radius, real_sound_terms, slack
from acert_zoo.network.layers import Linear


class MarginRows:
    """Margins f_y - f_t through rows V_t = fl(W_y - W_t), biases fl(b_y - b_t), by the affine rule.

    The relative error u of V_t and of the bias difference is one more rounding of each product: K >= g(L + 5) suffices.
    (Differences of float32 numbers cannot underflow in float64.)
    """

    def __init__(self, head: Linear, constant: float) -> None:
        self.weight, self.bias = head.weight, head.bias
        self.terms = self.make_terms(head.inner_length, constant)
        self._rows: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        # Rows of every label are kept where all of them take at most 64 MB.
        self._keep = 2 * head.weight.shape[0] * head.weight.numel() <= 2**23

    def make_terms(self, n: int, constant: float) -> Terms:
        return real_sound_terms(n, constant)

    def rows(self, label: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(V, |V|, b_y - b, t), of shapes [K, n], [K, n], [K], [K]."""
        if label in self._rows:
            return self._rows[label]
        rows, bias = self.weight[label] - self.weight, self.bias[label] - self.bias
        absolute = rows.abs()
        found = rows, absolute, bias, slack(absolute.sum(1), bias, self.terms)
        if self._keep:
            self._rows[label] = found
        return found

    def lower(self, x: Interval, labels: Tensor, alive: Tensor) -> Tensor:
        """Lower bounds [N, K] of f_y - f_t over the hidden box; the column t = y means nothing."""
        m, r = center_radius(x, self.terms)
        out = m.new_empty(len(m), len(self.bias))
        for label, chosen in by_label(labels):
            rows, absolute, bias, t = self.rows(label)
            d = torch.add(t, F.linear(r[chosen], absolute), alpha=1 + self.terms.dev)
            out[chosen] = F.linear(m[chosen], rows, bias) - d
        return nothing_where_not_finite(out)


def by_label(labels: Tensor) -> list[tuple[int, Tensor | slice]]:
    """Each label that occurs, with where it does."""
    found = labels.unique().tolist()
    return [(label, labels == label if len(found) > 1 else slice(None)) for label in found]


def nothing_where_not_finite(lower: Tensor) -> Tensor:
    """-inf for NaN and +inf, class by class: an overflow to +inf would vanish in the minimum over the classes."""
    return lower.masked_fill_(~torch.isfinite(lower), -math.inf)
