"""What every test shares: hypothesis without wall-clock limits, and the full data sets where this machine has them."""

from __future__ import annotations

import os

if os.environ.get("PYTEST_XDIST_WORKER"):  # a process a core; before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from acert_zoo.bounds.preconditions import flushes_subnormals
from tests.support.hub import ConnectedServer, connected

settings.register_profile("acert_zoo", deadline=None, print_blob=True)
settings.load_profile("acert_zoo")


# Files that take more than a few seconds: `make test-fast` leaves them out, and with them most of the time.
SLOW = (
    "cascades/test_nesting.py",
    "gallery/test_browser.py",
    "hub/",
    "test_hubconf.py",
    "test_package.py",
    "training/test_cards.py",
    "training/test_cascade.py",
    "training/test_distributed.py",
    "training/test_evaluate.py",
    "training/test_export.py",
    "training/test_kill.py",
    "training/test_loop.py",
    "training/test_publish.py",
    "training/test_train_command.py",
    "training/test_training_benchmarks.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def subnormals_stay() -> Iterator[None]:
    """No call leaves torch's threads flushing subnormal numbers to zero: every proof after it would be refused."""
    yield
    assert not flushes_subnormals()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the full data sets ($ACERT_ZOO_DATA); the test is skipped where there is none."""
    root = os.environ.get("ACERT_ZOO_DATA")
    if not root:
        pytest.skip("needs the full data sets: $ACERT_ZOO_DATA is not set")
    return Path(root)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ConnectedServer]:
    """A loopback Hub that this process's huggingface_hub talks to, with an empty cache."""
    with connected(monkeypatch, tmp_path) as server:
        yield server
