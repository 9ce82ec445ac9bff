"""The repository that the tests of this folder load from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hub import SMALL_REPO, ConnectedServer
from tests.support.models import files_of, small_model


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return files_of(small_model(), tmp_path / "saved")


@pytest.fixture
def repo(hub: ConnectedServer, files: dict[str, bytes]) -> ConnectedServer:
    hub.hub.create(SMALL_REPO, files)
    return hub
