"""Planted networks whose float32 program disagrees with the real-valued network, and the program in other orders."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import Affine, AvgPool, Flatten, Linear, Normalize, ReLU, Step
from tests.support import rational as exact

Planted = tuple[Network, Tensor, Tensor, Tensor]  # network, images, labels, eps (float64)


def chain(*steps: Step) -> Network:
    """Steps that each read the one before."""
    for i, step in enumerate(steps):
        object.__setattr__(step, "inputs", (i,))
    return Network(steps)


def linear(weight: Tensor | list, bias: Tensor | list) -> Linear:
    return Linear(inputs=(0,), weight=torch.as_tensor(weight).float(), bias=torch.as_tensor(bias).float())


def flatten() -> Flatten:
    return Flatten(inputs=(0,))


def relu() -> ReLU:
    return ReLU(inputs=(0,))


def pixels(values: Tensor) -> Tensor:
    return values.float().reshape(len(values), 1, 1, -1)


def large_bias() -> Iterable[Planted]:
    """x -> (x + 2^j) - 2^j - threshold: exact in real arithmetic, rounded to steps of 2^(j - 23) by the program."""
    x = torch.linspace(0, 1, 65)
    for j in (20, 22, 23):
        for threshold in (0.2, 0.5, 0.7):
            lift = linear([[1.0]], [2.0**j])
            back = linear([[1.0], [-1.0]], [-(2.0**j), 2.0**j])  # relu(x), relu(-x) around 0
            # The two halves are subtracted again, so that the head's rows are not large.
            head = linear([[1.0, -1.0], [0.0, 0.0]], [-threshold, 0.0])
            net = chain(flatten(), lift, relu(), back, relu(), head)
            for label in (0, 1):
                yield net, pixels(x), torch.full((65,), label), torch.zeros(65, dtype=torch.float64)


def cancelling_weights() -> Iterable[Planted]:
    """A hidden layer whose 64 large products cancel: the program's value is rounding error, of either sign."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        half = torch.from_numpy(rng.normal(size=32) * 1e4).float()
        weight = torch.cat([half, -half]).view(1, -1)
        net = chain(
            flatten(), linear(torch.cat([weight, -weight]), [1e-5, -1e-5]), relu(), linear(torch.eye(2), [0.0, 0.0])
        )
        x = torch.from_numpy(rng.uniform(0, 1, (8, 32))).float()
        yield net, pixels(torch.cat([x, x], 1)), torch.zeros(8, dtype=torch.int64), torch.zeros(8, dtype=torch.float64)


def nearly_equal_rows() -> list[Planted]:
    """Two output rows an ulp apart: the real margin is below the rounding of either logit."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        row = torch.from_numpy(rng.normal(size=64)).float()
        other = torch.where(torch.from_numpy(rng.random(64)) < 0.5, row, torch.nextafter(row, torch.tensor(torch.inf)))
        net = chain(flatten(), linear(torch.stack([other, row]), [0.0, 0.0]))
        x = torch.from_numpy(rng.uniform(0.1, 1, (16, 64))).float()
        found.append(
            (net, pixels(x), torch.zeros(16, dtype=torch.int64), torch.full((16,), 1e-12, dtype=torch.float64))
        )
    return found


def float32_overflow() -> list[Planted]:
    """3e38 (x_1 + x_2) overflows in float32; scaled back by 2e-38 the real network has a small second logit."""
    net = chain(
        flatten(),
        linear([[3e38, 3e38]], [0.0]),
        relu(),
        linear([[2e-38]], [0.0]),
        relu(),
        linear([[0.0], [1.0]], [20.0, 0.0]),
    )
    return [(net, pixels(torch.tensor([[0.9, 0.9]])), torch.tensor([0]), torch.tensor([1e-3], dtype=torch.float64))]


def normalize_violations() -> int:
    """Pixels whose float32 (x - mean) / std lies outside the interval of the box of radius 0."""
    normalize = Normalize(inputs=(0,), mean=torch.tensor([0.1]), std=torch.tensor([1.1e-3]))
    net = chain(normalize, flatten(), linear([[1.0], [0.0]], [0.0, 0.0]))
    x = pixels(torch.arange(256) / 255)
    interval, program = RigorousNetwork(net, "float32-deployed").intervals(x, 0.0)[1], normalize(x).double()
    return int(((program < interval.lower) | (program > interval.upper)).sum())


def wrongly_certified(planted: Iterable[Planted], level: str = "float32-deployed") -> int:
    """How many certified images the float32 torch program classifies otherwise (a tie of the logits counts)."""
    wrong = 0
    for net, images, labels, eps in planted:
        proved = RigorousNetwork(net, level).proves(images, labels, eps)
        wrong += int((proved & ~decides(net, images, labels)).sum())
    return wrong


def decides(net: Network, images: Tensor, labels: Tensor) -> Tensor:
    """[N] bool: whether the float32 program gives the label the strictly largest logit (NaN: no)."""
    with torch.no_grad():
        logits = net(images)
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return own > logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)


def run_permuted(net: Network, image: Tensor, rng: np.random.Generator, fused: bool) -> list[np.ndarray]:
    """All values of the float32 program on one image [C, H, W], every sum in a random order.

    `fused`: the products are not rounded before they are added (as with FMA).
    """
    values = [image.numpy()]
    for step in net.steps:
        inputs = [torch.from_numpy(values[i]).unsqueeze(0) for i in step.inputs]
        if isinstance(step, (Affine, AvgPool)):
            values.append(_permuted(step, values[step.inputs[0]], rng, fused))
        else:
            values.append(step(*inputs)[0].numpy())
    return values


def _permuted(step: Affine | AvgPool, x: np.ndarray, rng: np.random.Generator, fused: bool) -> np.ndarray:
    weight, bias, shape = exact.matrix(step, x.shape)
    terms = [weight.numpy() * x.reshape(1, -1).astype(np.float64), bias.numpy()[:, None]]
    if not fused:
        terms[0] = terms[0].astype(np.float32)
    summands = np.concatenate(terms, axis=1)
    order = rng.permuted(np.tile(np.arange(summands.shape[1]), (len(summands), 1)), axis=1)
    total = np.zeros(len(summands), dtype=np.float32)
    for column in np.take_along_axis(summands, order, axis=1).T:
        total = (total + column).astype(np.float32)
    if isinstance(step, AvgPool):
        total = total / np.float32(step.kernel_size[0] * step.kernel_size[1])
    return total.reshape(shape)
