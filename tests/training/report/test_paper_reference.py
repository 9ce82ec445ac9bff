"""The paper's own points: those of its figure."""

from __future__ import annotations

from training.report.paper_reference import PAPER


def test_the_papers_points_are_those_of_its_figure() -> None:
    paper = PAPER["cifar10"]
    assert paper.acert[2] == (20.28, 75.79)
    assert (len(paper.acert), len(paper.ibp)) == (8, 6)
    for curves in PAPER.values():
        for curve in (curves.acert, curves.ibp):
            assert list(curve) == sorted(curve)
            assert [y for _, y in curve] == sorted((y for _, y in curve), reverse=True)
