"""The mixed loss: samples of radius 0 need no bound pass, and a kappa that falls with the ramp."""

from __future__ import annotations

import pytest
import torch

from acert_zoo.network.tracing import trace
from tests.support.training import tiny_batch, tiny_model, tiny_recipe
from training.method import loss as loss_module
from training.method.loss import Loss, _split, eps_box, ibp_margins, mixed_loss


def test_the_split_keeps_every_sample_once_and_few_sizes() -> None:
    chosen = torch.tensor([k in (3, 20, 21) for k in range(40)])
    boxes, rest = _split(chosen)
    assert boxes.tolist()[:3] == [3, 20, 21]
    assert len(boxes) == 16
    assert sorted(boxes.tolist() + rest.tolist()) == list(range(40))
    assert [len(_split(torch.arange(40) < k)[0]) for k in (0, 16, 17, 33, 40)] == [16, 16, 32, 40, 40]


def test_a_sample_of_radius_0_is_read_off_the_clean_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradient are those of bounding the whole batch, and the bound pass meets 16 of 40 samples."""
    seen: list[int] = []

    def counting(network, box, labels, *rest, **options):  # type: ignore[no-untyped-def]
        seen.append(len(labels))
        return ibp_margins(network, box, labels, *rest, **options)

    monkeypatch.setattr(loss_module, "ibp_margins", counting)

    def step(points: bool) -> tuple[Loss, list[torch.Tensor]]:
        model = tiny_model()
        batch = tiny_batch(trace(model), n=40, eps_t=0.1, ramping=False, recipe=tiny_recipe(kappa=0.3))
        radius = torch.zeros(40, dtype=torch.float64)
        radius[torch.arange(0, 40, 4)] = 0.05
        clean = batch.clean_pass()
        result = mixed_loss(batch, clean, batch.folded(clean), eps_box(batch, radius), radius, points=points)
        result.total.backward()
        return result, [p.grad for p in model.parameters() if p.grad is not None]

    whole, gradient = step(points=False)
    part, same = step(points=True)
    assert seen == [40, 16]
    torch.testing.assert_close((part.total, part.robust), (whole.total, whole.robust), rtol=1e-12, atol=0)
    torch.testing.assert_close(same, gradient, rtol=1e-9, atol=1e-12)


def test_kappa_falls_with_the_radius() -> None:
    batch = tiny_batch(recipe=tiny_recipe(kappa=0.2, kappa_start=0.8), eps_t=0.025)  # a quarter of eps_max
    assert batch.kappa == pytest.approx(0.65)
    loss = mixed_loss(
        batch,
        clean := batch.clean_pass(),
        batch.folded(clean),
        eps_box(batch, radius := torch.full((6,), 0.025, dtype=torch.float64)),
        radius,
    )
    constant = tiny_batch(recipe=tiny_recipe(kappa=0.65), eps_t=0.025)
    same = mixed_loss(constant, clean, constant.folded(clean), eps_box(constant, radius), radius)
    assert torch.equal(loss.total, same.total)
