"""The certified-training loss in NumPy loops, each part by its definition: what the fast one is compared with."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


def slow_bounds(model: nn.Module, images: Tensor, labels: Tensor, eps: list[float]) -> tuple[np.ndarray, list]:
    """Margin bounds [N, K] and the boxes at ReLU inputs, with NumPy loops over layers, BatchNorm by its definition.

    Train-mode statistics are those of the clean images at each BatchNorm's input.
    """
    low = np.stack([np.clip(x - e, 0, 1) for x, e in zip(images.numpy(), eps, strict=True)])
    high = np.stack([np.clip(x + e, 0, 1) for x, e in zip(images.numpy(), eps, strict=True)])
    clean, boxes = images.numpy(), []
    layers = list(model.layers)  # type: ignore[arg-type]
    for layer in layers[:-1]:
        if isinstance(layer, nn.Conv2d):
            w, b = layer.weight.detach(), layer.bias.detach()

            def conv(x: np.ndarray, w: Tensor, stride: tuple, bias: Tensor | None = None) -> np.ndarray:
                return nn.functional.conv2d(torch.from_numpy(x), w, bias, stride, 1).numpy()

            clean = conv(clean, w, layer.stride, b)
            plus, minus = w.clamp(min=0), w.clamp(max=0)
            low, high = (
                conv(low, plus, layer.stride, b) + conv(high, minus, layer.stride),
                conv(high, plus, layer.stride, b) + conv(low, minus, layer.stride),
            )
        elif isinstance(layer, nn.Linear):
            w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
            clean = clean @ w.T + b
            plus, minus = np.maximum(w, 0), np.minimum(w, 0)
            low, high = low @ plus.T + high @ minus.T + b, high @ plus.T + low @ minus.T + b
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            axes = (0, 2, 3) if clean.ndim == 4 else (0,)
            mean, var = clean.mean(axes, keepdims=True), clean.var(axes, keepdims=True)
            shape = mean.shape
            gamma, beta = (p.detach().numpy().reshape(shape) for p in (layer.weight, layer.bias))

            def bn(x: np.ndarray, mean=mean, var=var, gamma=gamma, beta=beta, e=layer.eps) -> np.ndarray:
                return gamma * (x - mean) / np.sqrt(var + e) + beta

            clean, ends = bn(clean), (bn(low), bn(high))
            low, high = np.minimum(*ends), np.maximum(*ends)
        elif isinstance(layer, nn.ReLU):
            boxes.append((low, high))
            clean, low, high = np.maximum(clean, 0), np.maximum(low, 0), np.maximum(high, 0)
        elif isinstance(layer, nn.Flatten):
            clean, low, high = (x.reshape(len(x), -1) for x in (clean, low, high))
        else:  # Normalize
            m, s = (getattr(layer, k).numpy().reshape(1, -1, 1, 1) for k in ("mean", "std"))
            clean, low, high = ((x - m) / s for x in (clean, low, high))
            boxes.append((low, high))
    w, b = layers[-1].weight.detach().numpy(), layers[-1].bias.detach().numpy()
    margins = np.zeros((len(labels), len(w)))
    for n, y in enumerate(labels.tolist()):
        for t in range(len(w)):
            row = w[y] - w[t]
            margins[n, t] = sum(min(r * lo, r * hi) for r, lo, hi in zip(row, low[n], high[n], strict=True))
            margins[n, t] += b[y] - b[t]
    logits = clean @ w.T + b
    return margins, [logits, *boxes]


def cross_entropy(logits: np.ndarray, labels: Tensor) -> float:
    """Mean over the batch, by its definition."""
    return float(
        np.mean([math.log(sum(math.exp(v) for v in row)) - row[y] for row, y in zip(logits, labels, strict=True)])
    )


def slow_penalty(normalized: tuple, boxes: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """w_tight L_tight + w_relu L_relu with the default settings, by definition (training/method/regularizers.py)."""
    w_0 = np.mean(normalized[1] - normalized[0]) / 2
    tight = np.mean([max(0.5 - w_0 / max(np.mean(h - lo) / 2, 1e-12), 0) / 0.5 for lo, h in boxes])
    terms = []
    for lo, h in boxes:
        c = (lo + h) / 2
        active, inactive = lo > 0, h < 0
        term = 0.0
        if active.any() and inactive.any():
            for q in (
                c[active].sum() / -c[inactive].sum(),
                ((c - c.mean())[active] ** 2).sum() / ((c - c.mean())[inactive] ** 2).sum(),
            ):
                term += max(0.5 - min(q, 1 / q), 0) / 0.5
        terms.append(term)
    return 0.5 * float(tight) + 0.5 * float(np.mean(terms))
