"""What every test shares: hypothesis without wall-clock limits, and the full data sets where this machine has them."""

from __future__ import annotations

import os

if os.environ.get("PYTEST_XDIST_WORKER"):  # a process a core; before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from acert_zoo.bounds.preconditions import flushes_subnormals
from tests.support.hub import ConnectedServer, connected

settings.register_profile("acert_zoo", deadline=None, print_blob=True)
settings.load_profile("acert_zoo")


# Files that take more than a few seconds: `make test-fast` leaves them out, and with them most of the time.
SLOW = (
    "attacks/test_soundness_bench.py",
    "bounds/test_auto_lirpa.py",
    "bounds/test_box_changes.py",
    "bounds/test_crown_radius.py",
    "bounds/test_nonnegative_boxes.py",
    "bounds/test_onnx_bounds.py",
    "bounds/test_rigorous_ibp.py",
    "bounds/test_root_finding.py",
    "cascades/test_cascade.py",
    "cascades/test_nesting.py",
    "cascades/test_use.py",
    "certificates/test_activations.py",
    "certificates/test_certify.py",
    "certificates/test_file_fuzz.py",
    "cli/test_certify.py",
    "cli/test_terminal.py",
    "complete/test_against_enumeration.py",
    "certificates/test_ray_session.py",
    "gallery/test_browser.py",
    "hub/",
    "network/test_fuzz_modules.py",
    "network/test_hostile_modules.py",
    "network/test_onnx_files.py",
    "network/test_tracing.py",
    "network/test_unrepresentable_modules.py",
    "test_hubconf.py",
    "test_package.py",
    "test_tour.py",
    "training/test_cards.py",
    "training/test_cascade.py",
    "training/method/test_clean_pass.py",
    "training/compute/test_distributed.py",
    "training/test_evaluate.py",
    "training/test_export.py",
    "training/compute/test_kernels.py",
    "training/test_kill.py",
    "training/run/test_loop.py",
    "training/test_publish.py",
    "training/test_train.py",
    "training/test_training_benchmarks.py",
    "zoo/test_model.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def subnormals_stay() -> Iterator[None]:
    """No call leaves torch's threads flushing subnormal numbers to zero: every proof after it would be refused."""
    yield
    if flushes_subnormals():
        torch.set_flush_denormal(False)  # of this thread at least: the tests after it are not at fault
        pytest.fail("subnormal numbers are flushed to zero after this test")


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
