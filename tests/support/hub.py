"""The real huggingface_hub client, pointed at `tests.support.hub_server` and at a cache of its own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.hub_server import HubServer

# The repository that the tests in tests/hub load from.
SMALL_REPO = "owner/small"
SMALL_NAME = f"hf-hub:{SMALL_REPO}"
# Fetching in a process of its own: everything of load_model up to the verified bytes, without importing torch.
LOCATE = [sys.executable, "-c", f"from acert_zoo.zoo import resolve; print(resolve.locate({SMALL_NAME!r}).info.sha256)"]


class ConnectedServer(HubServer):
    """A server that this process's huggingface_hub talks to; `cache` is the client's, `pauses` its waiting times."""

    cache: Path
    pauses: list[float]

    def environment(self, **extra: str) -> dict[str, str]:
        """Variables for another process that shall use the same server and cache."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "PROXY" not in k.upper()}
        ours = {"HF_ENDPOINT": self.url, "HF_HOME": str(self.cache.parent), "HF_HUB_DISABLE_XET": "1"}
        return inherited | ours | extra


def point_client_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does for a fresh process: huggingface_hub reads it once, when it is imported."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):  # releases before 1.0 copy it when file_download is imported
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    new_session()


def new_session() -> None:
    """Lets huggingface_hub forget its open connections."""
    try:
        from huggingface_hub import close_session
    except ImportError:  # before 1.0
        from huggingface_hub.utils import reset_sessions as close_session
    close_session()


@contextmanager
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Points the client at a port that refuses connections."""
    with socket.socket() as unused, monkeypatch.context() as patched:  # bound, but never listening
        unused.bind(("127.0.0.1", 0))
        point_client_at(f"http://127.0.0.1:{unused.getsockname()[1]}", patched)
        yield


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[ConnectedServer]:
    """Starts a server; the client's pauses before another attempt are recorded instead of slept."""
    from huggingface_hub import constants

    with ConnectedServer() as server:
        server.cache = folder / "hf_home" / "hub"
        server.pauses = []
        for name in [n for n in os.environ if n.startswith("HF_") or "PROXY" in n.upper()]:
            monkeypatch.delenv(name)
        point_client_at(server.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(server.cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "hf_home" / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
        monkeypatch.setattr("time.sleep", server.pauses.append)
        yield server
        new_session()
