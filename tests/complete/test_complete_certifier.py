"""Radii by bisection with verdicts: known by hand, never above an adversarial image, proved again by `verify`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import acert_zoo
from acert_zoo.certificates.verify import verify_file
from acert_zoo.errors import InvalidInputError, UnsupportedLayerError
from tests.support.models import SHAPE, small_model


class Twice(nn.Module):
    """Class 0 where 3 relu(x) - 2 relu(x) = x > 0.3: interval bounds take the two for unrelated and lose 5 eps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(1, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.first.weight[:], self.first.bias[:] = 1.0, 0.0
            self.head.weight[:] = torch.tensor([[3.0, -2.0], [0.0, 0.0]])
            self.head.bias[:] = torch.tensor([-0.3, 0.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x.flatten(1))))


def test_radius_by_hand(tmp_path: Path) -> None:
    """At x = 0.5 the boundary is 0.2 away; `verify` proves the radius again by a search of its own."""
    model, image, label = Twice().eval(), torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    file = tmp_path / "certificates.jsonl"
    found = acert_zoo.certify(model, image, label, method="complete", budget=20, out=file)
    assert 0.198 <= float(found.radius[0]) < 0.2
    assert float(acert_zoo.certify(model, image, label).radius[0]) < 0.05
    assert float(found.margin[0]) > 0
    assert (found.method, found.rounding) == (["complete"], "real-sound")
    assert verify_file(file, model=model, images=image).ok
    text = file.read_text()
    file.write_text(text.replace(f'"radius": "{found[0].radius}', '"radius": "0.21'))
    assert not verify_file(file, model=model, images=image).ok


@pytest.mark.slow
def test_radii_lie_between_interval_bounds_and_attacks() -> None:
    model = small_model(3)
    images = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = acert_zoo.certify(model, images, method="complete", budget=3)
    assert bool((found.radius >= acert_zoo.certify(model, images).radius).all())
    assert not bool(acert_zoo.attack(model, images, found.label, found.radius).success.any())


def test_what_cannot_be_asked() -> None:
    image = torch.full((1, *SHAPE), 0.5)
    with pytest.raises(InvalidInputError, match="real-sound"):
        acert_zoo.certify(small_model(), image, method="complete", rounding="float32-deployed")
    cascade = small_model()
    cascade.route = None  # type: ignore[assignment]
    with pytest.raises(UnsupportedLayerError, match="one by one"):
        acert_zoo.certify(cascade, image, method="complete")


def test_certify_decides_at_one_eps() -> None:
    image = torch.full((1, 1, 1, 1), 0.5)
    decided = acert_zoo.certify(Twice().eval(), image, torch.tensor([0]), eps="0.19", decide=True, budget=20)
    assert decided.status == ["robust"]
    decided = acert_zoo.certify(Twice().eval(), image, torch.tensor([0]), eps="0.21", decide=True, budget=20)
    assert decided.status == ["not robust"]
    with pytest.raises(InvalidInputError, match="needs eps"):
        acert_zoo.certify(Twice().eval(), image, decide=True)  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match="needs eps"):
        acert_zoo.certify(Twice().eval(), image, eps="0.2")
    with pytest.raises(InvalidInputError, match="every method"):
        acert_zoo.certify(Twice().eval(), image, eps="0.2", decide=True, method="crown")
