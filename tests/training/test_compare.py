"""ACR at equal accuracy: interpolation by hand, and the command on the registry of this checkout."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from training.compare import acr_at, main


def test_interpolation_by_hand() -> None:
    curve = [(60.0, 20.0), (70.0, 10.0)]
    assert acr_at(curve, 60) == 20
    assert acr_at(curve, 65) == 15
    assert acr_at(curve, 67.5) == 12.5
    assert acr_at(curve, 59.9) is None
    assert acr_at(curve, 70.1) is None
    assert acr_at([], 50) is None


def test_beaten_points_do_not_count() -> None:
    assert acr_at([(60.0, 20.0), (65.0, 5.0), (70.0, 10.0)], 65) == 15
    assert acr_at([(60.0, 20.0), (60.0, 20.0)], 60) == 20


def test_the_command_prints_every_method_and_the_paper() -> None:
    result = CliRunner().invoke(main, ["--accuracy", "55", "--accuracy", "75", "--accuracy", "99"])
    assert result.exit_code == 0, result.output
    head, *rows = result.output.splitlines()
    assert "ACERT" in head
    assert "paper: IBP" in head
    assert [row.split()[0] for row in rows] == ["55", "75", "99"]
    paper = 20.28 + (27.97 - 20.28) * (75.79 - 75) / (75.79 - 73.13)
    assert f"{paper:.2f}" in rows[1]
    assert set(rows[2].split()[1:]) == {"-"}


@pytest.mark.parametrize("arguments", [["--dataset", "nothing"], ["--accuracy", "101"]])
def test_bad_arguments(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2
