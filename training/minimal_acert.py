"""ACERT in one file: trains a certifiably robust MNIST classifier in a few minutes of one CPU core and certifies it.

    python training/minimal_acert.py [--kappa 0.25] [--eps 0.3] [--epochs 5]

The method (Nurlanov et al. 2023, arXiv 2307.13078) without what makes it fast or better in the long run: BatchNorm,
warm-up regularisers, remembered radii (loop.py, objectives.py). Bounds are interval bound propagation (Gowal et al.
2018, arXiv 1810.12715) in float32, rounding not controlled; the package's `certify` proves with rounding.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acert_zoo.data import datasets


def build_network() -> nn.Sequential:
    """Two convolutions and a hidden layer; pixels in [0, 1] to ten logits. Weights start at N(0, sqrt(2 pi) / fan_in),
    with which interval widths neither explode nor vanish (Shi et al. 2021, arXiv 2103.17268)."""
    network = nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip
    layers: list = list(network)
    for layer in layers[:-1]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=math.sqrt(2 * math.pi) / layer.weight[0].numel())
    return network


def margin_bounds(network: nn.Sequential, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    """Lower bounds [N, 10] of f_y - f_t over all images within eps [N] of x in every pixel (and in [0, 1]).

    A box goes through the layers as centre c and half-width r: an affine layer maps them to W c + b and |W| r, ReLU is
    applied to both ends. The last layer is merged with the difference f_y - f_t. The column t = y holds 0.
    """
    eps = eps.view(-1, 1, 1, 1)
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    layers: list = list(network)
    for layer in layers[:-1]:
        if isinstance(layer, nn.ReLU | nn.Flatten):
            low, high = layer(low), layer(high)
            continue
        center, radius = (low + high) / 2, (high - low) / 2
        if isinstance(layer, nn.Conv2d):
            radius = F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
        else:
            radius = F.linear(radius, layer.weight.abs())
        center = layer(center)
        low, high = center - radius, center + radius
    center, radius = (low + high) / 2, (high - low) / 2
    weight, bias = layers[-1].weight, layers[-1].bias
    rows = weight[y].unsqueeze(1) - weight  # [N, 10, features]: W_y - W_t
    value = (rows * center.unsqueeze(1)).sum(2) - (rows.abs() * radius.unsqueeze(1)).sum(2)
    return value + bias[y].unsqueeze(1) - bias


def smallest(margins: Tensor, y: Tensor) -> Tensor:
    """R(x, eps) [N]: the smallest margin bound over the other classes. Above 0 the box has one prediction."""
    return margins.scatter(1, y.unsqueeze(1), torch.inf).amin(1)


@torch.no_grad()
def certified_radius(network: nn.Sequential, x: Tensor, y: Tensor, eps_max: float, halvings: int) -> Tensor:
    """eps*(x) [N]: the largest radius in [0, eps_max] with R(x, eps) >= 0, by bisection; 0 for a wrong prediction.

    R falls as eps grows, so the lower end of the bracket is always certified.
    """
    everywhere = torch.ones(len(x))
    radius = torch.where(smallest(margin_bounds(network, x, y, eps_max * everywhere), y) >= 0, eps_max, 0.0)
    between = (radius == 0) & (smallest(margin_bounds(network, x, y, 0 * everywhere), y) >= 0)
    x, y, low, high = x[between], y[between], 0 * everywhere[between], eps_max * everywhere[between]
    for _ in range(halvings):
        middle = (low + high) / 2
        passed = smallest(margin_bounds(network, x, y, middle), y) >= 0
        low, high = torch.where(passed, middle, low), torch.where(passed, high, middle)
    radius[between] = low
    return radius


def acert_loss(network: nn.Sequential, x: Tensor, y: Tensor, eps: float, kappa: float) -> Tensor:
    """kappa CE(f(x), y) + (1 - kappa) CE(z, y), z_t = -(margin bound of t) at the sample's own radius.

    Where plain IBP training demands radius eps of every image, those that it gets wrong included, ACERT trains each
    image where its bound is just about to fail. No gradient flows through the radius.
    """
    radius = certified_radius(network, x, y, eps, halvings=4)
    robust = F.cross_entropy(-margin_bounds(network, x, y, radius), y)
    return kappa * F.cross_entropy(network(x), y) + (1 - kappa) * robust


def train(network: nn.Sequential, images: Tensor, labels: Tensor, *, eps: float, kappa: float, epochs: int) -> None:
    """Adam; the radius rises from 0 to eps over the first 60 % of the steps, the learning rate falls over the last."""
    per_epoch, optimizer = len(images) // 128, torch.optim.Adam(network.parameters(), lr=1e-3)
    steps, began = epochs * per_epoch, time.monotonic()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min(1.0, 2 * (1 - k / steps)))
    for k in range(steps):
        if k % per_epoch == 0:
            batches = torch.randperm(len(images)).split(128)
        chosen = batches[k % per_epoch]
        loss = acert_loss(network, images[chosen], labels[chosen], eps * min(1.0, k / (0.6 * steps)), kappa)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if k % 100 == 99:
            print(f"step {k + 1} of {steps}: loss {loss.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)


@torch.no_grad()
def evaluate(network: nn.Sequential, images: Tensor, labels: Tensor, eps: float) -> dict[str, float]:
    """Accuracy and certified accuracy at eps in %, and the mean certified radius up to eps (ACR)."""
    right = certified = radii = 0.0
    for x, y in zip(images.split(500), labels.split(500), strict=True):
        right += (network(x).argmax(1) == y).sum().item()
        certified += (smallest(margin_bounds(network, x, y, torch.full((len(x),), eps)), y) > 0).sum().item()
        radii += certified_radius(network, x, y, eps, halvings=10).sum().item()
    n = len(images)
    return {"accuracy": 100 * right / n, "certified": 100 * certified / n, "acr": radii / n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kappa", type=float, default=0.25, help="weight of the clean loss: 0 robust, 1 standard")
    parser.add_argument("--eps", type=float, default=0.3, help="largest radius, pixels in [0, 1]")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the 55,000 training images")
    parser.add_argument("--data-root", help="folder of the data set; downloaded without it")
    args = parser.parse_args()
    torch.manual_seed(0)
    images, labels = datasets.load_split("mnist", "train", args.data_root)
    network, pixels, targets = build_network(), datasets.to_pixels(images), torch.as_tensor(labels)
    train(network, pixels, targets, eps=args.eps, kappa=args.kappa, epochs=args.epochs)
    held_out, answers = datasets.load_split("mnist", "val", args.data_root)
    result = evaluate(network, datasets.to_pixels(held_out), torch.as_tensor(answers), args.eps)
    print(", ".join(f"{key} {value:.4g}" for key, value in result.items()), "on 5,000 held-out images")


if __name__ == "__main__":
    main()
