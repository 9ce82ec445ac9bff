"""A Hugging Face Hub on the loopback interface, in memory: enough of its HTTP protocol for the real huggingface_hub
client to create repositories, commit, tag, list, download and keep collections, and to meet every way this can fail.

    with HubServer() as server:
        server.hub.create("owner/repo", {"config.json": b"{}"})
        hf_hub_download("owner/repo", "config.json", endpoint=server.url)

Large files go through the git-LFS endpoints (clients: HF_HUB_DISABLE_XET=1). Failures are planted with `server.fail`,
`server.cut` and `server.alter`; `server.requests` lists what was asked. Tokens: "hf_owner" may write below "owner/",
"hf_reader" only reads.

Why no HTTP test library: it would take over the thread and the route table below (some 60 lines). Nearly all of this is
what a Hub does (commits, refs, LFS, access), and a WSGI server such as pytest-httpserver cannot break a connection off
in the middle of a body of the announced length, which is the failure that downloads must survive.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer

from tests.support.hub_handler import Handler, Plan
from tests.support.hub_repositories import Hub


class HubServer:
    """Runs in a thread; `url` is the endpoint, `hub` the state, `requests` the (method, path, headers in lower case)
    it was sent."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.plans: list[Plan] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.RLock()
        handler = type("BoundHandler", (Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fail(
        self,
        pattern: str,
        status: int,
        *,
        times: int = 10**9,
        method: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answers requests whose path matches `pattern` with `status` instead."""
        self.plans.append(Plan(pattern, method, times, status=status, headers=headers or {}))

    def cut(self, pattern: str, after: int, *, times: int = 1) -> None:
        """Closes the connection after `after` bytes of the body."""
        self.plans.append(Plan(pattern, "GET", times, cut_after=after))

    def alter(self, pattern: str, change: Callable[[bytes], bytes], *, times: int = 10**9) -> None:
        """Sends other bytes than those the metadata announce (of the same length, or the client notices itself)."""
        self.plans.append(Plan(pattern, "GET", times, alter=change))

    def set_header(self, pattern: str, name: str, value: str) -> None:
        """Puts a header into successful answers, in place of the true one."""
        self.plans.append(Plan(pattern, None, 10**9, headers={name: value}))

    def paths(self, method: str | None = None) -> list[str]:
        """The paths asked for, in order."""
        return [path for m, path, _ in self.requests if method in (None, m)]

    def plan_for(self, method: str, path: str) -> Plan | None:
        with self.lock:
            for plan in self.plans:
                if plan.times > 0 and plan.method in (None, method) and re.search(plan.pattern, path):
                    plan.times -= 1
                    return plan
        return None
