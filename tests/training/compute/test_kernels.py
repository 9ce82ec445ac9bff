"""The elementwise passes of a step: by hand, against the rules of acert_zoo.bounds.ibp, and compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from acert_zoo.bounds.ibp import Ball, _ReLUOfBall
from acert_zoo.errors import InvalidInputError
from training.compute import kernels


def test_the_box_of_relu_by_hand() -> None:
    """[1, 3] stays, [-1, 2] becomes [0, 2], [-3, -1] becomes 0."""
    center, radius = kernels.relu_box(torch.tensor([[2.0, 0.5, -2.0]]), torch.tensor([[1.0, 1.5, 1.0]]))
    assert center.tolist() == [[2.0, 1.0, 0.0]]
    assert radius.tolist() == [[1.0, 1.0, 0.0]]


def test_bfloat16_keeps_a_small_width_beside_a_large_centre() -> None:
    """relu(c + r) - relu(c - r) would be 0: c + r and c - r round to c."""
    center, radius = (torch.tensor([[v]], dtype=torch.bfloat16) for v in (64.0, 0.01))
    assert center + radius == center - radius
    assert kernels.relu_box(center, radius) == (center, radius)


def boxes(n: int = 200) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    center = torch.randn(n, 3, generator=g, dtype=torch.float64)
    radius = torch.rand(n, 3, generator=g, dtype=torch.float64)
    radius[: n // 8] = 0.0
    return center, radius


def test_values_and_gradients_are_those_of_certification() -> None:
    values, gradients = [], []
    for rule in (kernels.relu_box, _ReLUOfBall.apply):
        center, radius = (x.clone().requires_grad_() for x in boxes())
        out = Ball(*rule(center, radius), 1.0 if rule is kernels.relu_box else 0.5)
        values.append((out.center * out.scale, out.radius * out.scale))
        weights = torch.linspace(-1, 1, center.numel(), dtype=torch.float64).view_as(center)
        total = (values[-1][0] * weights + values[-1][1] * weights.flip(0)).sum()
        gradients.append(torch.autograd.grad(total, (center, radius)))
        if rule is kernels.relu_box:
            c, r = (v.detach() for v in values[0])
            by_formula = kernels.relu_box_gradient(c, r, weights, weights.flip(0))
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(by_formula, gradients[1])


def test_moments_and_their_gradient_are_autograds() -> None:
    center, radius = (x.flatten() for x in boxes())
    center.requires_grad_()
    mean = center.detach().mean()
    grad = torch.tensor([2.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    sums = kernels.balance_moments(center, radius, mean)
    (expected,) = torch.autograd.grad((sums[2:] * grad).sum(), center)
    offset = torch.tensor(0.25, dtype=torch.float64)
    mine = kernels.balance_moments_gradient(center.detach(), radius, mean, grad, offset)
    torch.testing.assert_close(mine, expected + 0.25)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiler_changes_nothing_but_rounding(dtype: torch.dtype) -> None:
    a, b, c, d = (torch.randn(37, 5, generator=torch.Generator().manual_seed(k)).to(dtype) for k in range(4))
    s, t, u = (torch.randn(5, generator=torch.Generator().manual_seed(k)) for k in range(3))
    calls = {
        kernels.relu_box: (a, b.abs()),
        kernels.relu_box_gradient: (*kernels.relu_box(a, b.abs()), c, d),
        kernels.normalize_relu: (a, s, t),
        kernels.normalize_relu_sums: (a, b, c),
        kernels.normalize_relu_gradient: (a, b, c, s, t, u),
        kernels.mean: (a.flatten(),),
    }
    for function, arguments in calls.items():
        torch.testing.assert_close(
            kernels.compiled(function)(*arguments), function(*arguments), msg=lambda text, f=function: f"{f}: {text}"
        )


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.require_compiler()  # there is one here
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InvalidInputError, match=r"'no-such-compiler'.*not on PATH.*compile = false"):
        kernels.require_compiler()
