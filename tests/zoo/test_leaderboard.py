"""The leaderboard: one row a model, with the figures of the registry."""

from __future__ import annotations

import pytest

import acert_zoo
from acert_zoo.zoo.leaderboard import leaderboard


def test_list_models_and_leaderboard_of_the_zoo() -> None:
    wanted = {"dataset": "cifar10", "where": ["accuracy>60", "certified@2/255>10"], "sort": "certified@2/255"}
    listed = acert_zoo.list_models("cifar10_*", **wanted)
    rows = leaderboard("cifar10_*", **wanted, as_frame=False)
    assert [row["name"] for row in rows] == listed
    figures = [row["certified@2/255"] for row in rows]
    assert len(figures) > 2
    assert figures == sorted(figures, reverse=True)
    assert all(row["accuracy"] > 60 and row["rounding"] == "real-sound" for row in rows)
    assert "certified@0.3" not in rows[0]


def test_leaderboard_is_a_frame_where_pandas_is() -> None:
    pandas = pytest.importorskip("pandas")
    frame = acert_zoo.leaderboard(dataset="mnist")
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["name"]) == acert_zoo.list_models(dataset="mnist")
