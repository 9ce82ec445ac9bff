"""Threads by default: as many as the process may use; a user's own setting counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from acert_zoo.cli import threads


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", None), ("200000 100000\n", 2), ("50000 100000", 1), ("", None), ("a b", None)]
)
def test_a_containers_share(text: str, cores: int | None) -> None:
    assert threads.quota(text) == cores


def test_the_users_own_number_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads.default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    (tmp_path / "cpu.max").write_text("100000 100000")
    monkeypatch.setattr(threads, "CGROUP_LIMIT", tmp_path / "cpu.max")
    assert threads.default_threads() == 1


def test_waiting_is_passive_unless_the_user_says_otherwise() -> None:
    environment: dict[str, str] = {}
    threads.wait_passively(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}
    environment["OMP_WAIT_POLICY"] = "ACTIVE"
    threads.wait_passively(environment)
    assert environment == {"OMP_WAIT_POLICY": "ACTIVE"}
