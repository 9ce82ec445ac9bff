"""A training step on a device whose values the host cannot read: what `--device cuda` needs to run without waiting.

Tensors of the meta device have shapes and no values. An operation that reads one (`.item()`, `nonzero`, a Python `if`)
raises there, inside torch's own functions too, and so does one that mixes devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.support.training import tiny_recipe, write_dataset
from training.method.adaptive_radius import _median
from training.method.batch_norm import Normalize
from training.run.loop import Trainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("data")))


@pytest.fixture
def batch_statistics_on_meta() -> Iterator[None]:
    """The one operation of a step that has no meta kernel (it has one for CUDA)."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("batch_norm_update_stats", lambda x, *rest: (x.new_empty(x.shape[1]), x.new_empty(x.shape[1])))
    yield
    library._destroy()


@pytest.mark.usefixtures("batch_statistics_on_meta")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": {"l1": 1e-5, "ema": 0.9, "name": "sgd"}},
        {"objective": "ibp"},
        {"objective": "crown-ibp"},
        {"objective": "standard"},
        {"precision": "bfloat16", "optimizer": {"name": "muon"}},
    ],
)
def test_every_phase_of_a_run_without_reading_a_value(root: str, changes: dict[str, Any]) -> None:
    trainer = Trainer(tiny_recipe(radius={"first_epochs": 0.25, "ramp_epochs": 0.5}, **changes), root, "meta")
    for _ in range(6):  # before the ramp, ramp, full radius, second epoch
        loss = trainer.train_step()
    assert loss.total.device.type == "meta"
    assert trainer.scales.device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):  # the check itself works: here a value is read
        trainer.check_finite()


def test_the_median_that_waits_for_no_device() -> None:
    nan = torch.nan
    for values in ([3.0, nan, 1.0, 2.0], [nan, 4.0, 1.0], [nan, 5.0], [7.0, 8.0, 9.0]):
        x = torch.tensor(values)
        assert _median(x).item() == x.nanmedian().item()
    assert _median(torch.tensor([nan, nan])).isnan().all()


def test_batch_normalisation_in_channels_last_memory() -> None:
    """The layout of a run. Its gradient comes from the statistics alone: no saved ones are passed (see Normalize)."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    gamma, beta = torch.rand(3, dtype=torch.float64) + 0.5, torch.randn(3, dtype=torch.float64)
    out = Normalize.apply(x, gamma, beta, 1e-5)[0]
    assert out.is_contiguous(memory_format=torch.channels_last)
    reference = torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5)
    weights = torch.randn(out.shape, dtype=torch.float64)
    mine, theirs = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (out, reference))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
