"""A small gallery, built once, and a browser to look at it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acert_zoo.gallery.build import CHECKOUT, build_site
from acert_zoo.gallery.evaluations import read_evaluation
from acert_zoo.zoo.registry import model_info
from scripts.site_pictures import ARGUMENTS, BROWSERS, browser_executable, served

MODELS = ("mnist_kappa000", "mnist_cascade", "cifar10_kappa025")
ATTACKED = "mnist_kappa000"
DECIDED = "cifar10_kappa025"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery of MODELS; skips where its scripts cannot be bundled (no Node.js, or npm's packages are not here)."""
    pytest.importorskip("jinja2")
    pytest.importorskip("onnx")
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    if not (CHECKOUT / "site" / "node_modules").is_dir():
        pytest.skip("npm's packages are not fetched: run npm ci in the folder site")
    checkout = tmp_path_factory.mktemp("gallery") / "checkout"
    shutil.copytree(CHECKOUT / "evaluations", checkout / "evaluations")
    (checkout / "site").symlink_to(CHECKOUT / "site")
    store_attack(checkout / "evaluations", ATTACKED)
    store_verdicts(checkout / "evaluations", DECIDED)
    dest = checkout.parent / "site"
    build_site(dest, checkout=checkout, names=MODELS)
    return dest


def store_attack(evaluations: Path, name: str) -> None:
    """An attack on the first 100 images as `training/attack.py` would store it: at 1.25 times each certified radius,
    and nothing found for every tenth image."""
    info = model_info(name)
    distances = 1.25 * read_evaluation(evaluations, info).radii[:100]
    distances[::10] = np.inf
    np.save(evaluations / f"{info.versioned_name}.attacked.npy", distances)
    document = json.dumps({"weights_sha256": info.sha256})
    (evaluations / f"{info.versioned_name}.attack.json").write_text(document, encoding="utf-8")


def store_verdicts(evaluations: Path, name: str) -> None:
    """Verdicts of the first 100 images at 2/255: of those that IBP does not certify, two are proved otherwise, two are
    undecided."""
    info = model_info(name)
    certified = int((read_evaluation(evaluations, info).radii[:100] >= 2.0000001 / 255).sum())
    counts = {"robust": certified + 2, "undecided": 2, "misclassified": 40}
    entry = {
        "eps": "2/255",
        "n": 100,
        "budget_seconds": 15.0,
        "counts": {**counts, "refuted": 100 - sum(counts.values())},
        "proved_by": {"ibp": certified, "crown": 1, "branch-and-bound": 1},
        "seconds_per_image": 0.4,
    }
    document = json.dumps({"weights_sha256": info.sha256, "decided": [entry]})
    (evaluations / f"{info.versioned_name}.decided.json").write_text(document, encoding="utf-8")


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where a server on this machine offers the site."""
    with served(site) as at:
        yield at


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = browser_executable()
    if executable is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    with playwright.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=executable, headless=True, args=ARGUMENTS.split())
        yield chromium
        chromium.close()


class Complaints:
    """What a page complained of: errors on its console, exceptions, requests that failed or left this machine."""

    def __init__(self, page: Any, address: str) -> None:
        self.found: list[str] = []
        self.address = address
        self.script_bytes = 0
        page.on("console", lambda m: self.found.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.found.append(str(error)))
        page.on("requestfailed", lambda request: self.found.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith((self.address, "blob:", "data:")) else self.found.append(r.url),
        )
        page.on("response", self._response)

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.found.append(f"{response.status}: {response.url}")
        if response.request.resource_type == "script":
            self.script_bytes += int(response.headers.get("content-length", 0))


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A fresh page; the test fails where it complains. `page.complaints` tells of what."""
    context = browser.new_context(viewport={"width": 1100, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.complaints = Complaints(page, address)
    yield page
    complaints = page.complaints.found
    context.close()
    assert complaints == []
