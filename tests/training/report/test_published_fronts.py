"""Published results in our figures: as their sources have them."""

from __future__ import annotations

from training.report.published_fronts import FRONTS, front_eps, front_kind, fronts_of


def test_published_fronts_are_those_of_their_source() -> None:
    front = next(f for f in fronts_of("cifar10") if f.eps == "2/255")
    assert (front.n, front.tuned_on) == (10_000, "validation")
    assert front.points["SABR"][0] == (60.11, 81.68)
    assert [f.eps for f in fronts_of("cifar10")] == ["2/255", "8/255"]
    assert [front_eps(front_kind(f)) for f in fronts_of("tinyimagenet")] == ["1/255"]
    for f in FRONTS:
        for curve in f.points.values():
            assert list(curve) == sorted(curve)
            assert [y for _, y in curve] == sorted((y for _, y in curve), reverse=True), "none dominates another"
