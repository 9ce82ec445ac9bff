"""Which operations auto-LiRPA bounds rightly: python benchmarks/auto_lirpa_operations.py [--networks 12] [NAME ...]

Random networks of three linear layers with the operation between them, weights of three scales: a bound of every method
at three radii, against the smallest margin that corners, random points and gradient descent find in the box. A bound
above that margin, by more than rounding, is wrong. Operations that `acert_zoo` lets through to auto-LiRPA must show
none, and the exit status is 1 if one does; the others are there to see why they are not let through. "not converted"
says that auto-LiRPA refuses the operation itself, or fails in this method.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acert_zoo.attacks.exact_box import attack_box
from acert_zoo.attacks.pgd import descend, margin_objective, random_corners, random_points
from acert_zoo.bounds.auto_lirpa import FAILURES, LirpaBounds
from acert_zoo.errors import UnsupportedLayerError

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
RADII = (0.02, 0.1, 0.3)
LET_THROUGH = ("relu", "sigmoid", "tanh", "max pooling")
SHAPE = (1, 4, 4)


def _pooled(pool: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: pool(x.reshape(-1, 1, 4, 4), 2).reshape(-1, 4)


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "max pooling": _pooled(F.max_pool2d),
    "average pooling": _pooled(F.avg_pool2d),
    "leaky relu 0.1": lambda x: F.leaky_relu(x, 0.1),
    "leaky relu -0.5": lambda x: F.leaky_relu(x, -0.5),
    "leaky relu 1.5": lambda x: F.leaky_relu(x, 1.5),
    "abs": torch.abs,
    "atan": torch.atan,
    "elu": F.elu,
    "exp": torch.exp,
    "gelu": F.gelu,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "sin": torch.sin,
    "softmax": lambda x: x.softmax(1),
    "softplus": F.softplus,
    "square": lambda x: x * x,
}


class Sandwich(nn.Module):
    """linear, operation, linear, operation, linear."""

    def __init__(self, operation: Callable[[Tensor], Tensor], scale: float) -> None:
        super().__init__()
        width = operation(torch.zeros(1, 16)).shape[1]
        self.layers = nn.ModuleList([nn.Linear(16, 16), nn.Linear(width, 16), nn.Linear(width, 3)])
        self.operation = operation
        for parameter in self.parameters():
            parameter.data.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        first, second, head = self.layers
        return head(self.operation(second(self.operation(first(x.flatten(1))))))

    def box(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return lower, upper


class _Bounds(LirpaBounds):
    """auto-LiRPA's own conversion of any module, and its own bounds, whatever a corner of the box shows."""

    def __init__(self, module: nn.Module) -> None:
        self._set(module, 3, SHAPE, torch.float32)

    def _found(self, lower: Tensor, upper: Tensor, labels: Tensor) -> Tensor:
        return torch.full((len(lower),), torch.finfo(torch.float32).max)


def smallest_margin(module: nn.Module, image: Tensor, label: Tensor, eps: float) -> float:
    """The smallest margin found in the box."""
    n, generator = 300, torch.Generator().manual_seed(0)
    radius = torch.full((n,), eps, dtype=torch.float64)
    box = attack_box(image.expand(n, -1, -1, -1).contiguous(), radius)
    objective, labels = margin_objective(module), label.expand(n)
    points = torch.cat([random_corners(box, generator)[: n // 2], random_points(box, generator)[n // 2 :]])
    found = descend(objective, points, labels, box, radius, 8)
    with torch.no_grad():
        return min(float(objective(p, labels).min()) for p in (points, *found))


def measure(name: str, networks: int) -> dict[str, tuple[int, int, float]]:
    """For each method (wrong bounds, bounds, the largest excess over the margin found); 0 bounds: not converted."""
    out = {}
    for method in METHODS:
        wrong, count, excess = 0, 0, 0.0
        for seed in range(networks):
            torch.manual_seed(seed)
            module = Sandwich(OPERATIONS[name], (1.0, 2.0, 4.0)[seed % 3]).eval()
            image = torch.rand(1, *SHAPE)
            label = module(image).argmax(1)
            try:
                bounds = [_Bounds(module).margins(image, label, eps, method).item() for eps in RADII]
            except (*FAILURES, UnsupportedLayerError, NotImplementedError, KeyError, ValueError):
                continue
            for eps, bound in zip(RADII, bounds, strict=True):
                margin = smallest_margin(module, image, label, eps)
                count += 1
                if bound > margin + 1e-4 * max(1.0, abs(margin)):
                    wrong, excess = wrong + 1, max(excess, bound - margin)
        out[method] = (wrong, count, excess)
    return out


@click.command(help=__doc__.split("\n", 1)[0])
@click.argument("names", nargs=-1, type=click.Choice(list(OPERATIONS)))
@click.option("--networks", default=12, show_default=True)
def main(names: tuple[str, ...], networks: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    failed = False
    for name in names or OPERATIONS:
        found = measure(name, networks)
        shown = [
            f"{method}: {f'{wrong} of {n} wrong' if n else 'not converted'}{f' (by up to {by:.2g})' if wrong else ''}"
            for method, (wrong, n, by) in found.items()
        ]
        print(f"{name:16s} {'; '.join(shown)}", flush=True)
        failed |= name in LET_THROUGH and any(wrong for wrong, _, _ in found.values())
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
