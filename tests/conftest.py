"""What every test shares: hypothesis without wall-clock limits, and the full data sets where this machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("acert_zoo", deadline=None, print_blob=True)
settings.load_profile("acert_zoo")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the full data sets ($ACERT_ZOO_DATA); the test is skipped where there is none."""
    root = os.environ.get("ACERT_ZOO_DATA")
    if not root:
        pytest.skip("needs the full data sets: $ACERT_ZOO_DATA is not set")
    return Path(root)
