"""Takes the four pictures of the gallery that README.md and docs/gallery.md show.

    acert-zoo site _site && python scripts/site_pictures.py _site

Needs Chromium and Playwright for Python (pip install playwright); writes docs/figures/gallery-*.webp.
"""

from __future__ import annotations

import http.server
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
SIZE = {"width": 1040, "height": 780}
SCALE = 1.5  # device pixels for each CSS pixel: sharp on dense screens
LARGEST = 150_000  # bytes
PATIENCE = 300_000  # ms


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Offers the folder on this machine alone; yields its address, with a slash at the end."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(site))

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64  # a browser opens many connections at once

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def browser_executable() -> str | None:
    """The path of an installed Chromium, None where there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def _open_image(page: Any) -> None:
    page.locator("#detail[open] canvas").first.wait_for()


def _prove(page: Any) -> None:
    page.locator("#load").click()
    page.locator("#radius[data-value]").wait_for()
    page.locator("#at-radius").click()
    page.locator("#verdict.holds").wait_for()


def _nothing(page: Any) -> None:
    pass


def _chart(page: Any) -> None:
    page.locator("section.card").first.evaluate("card => card.scrollIntoView()")


PICTURES: dict[str, tuple[str, str, Callable[[Any], None]]] = {
    "tradeoff": ("index.html#cifar10", "light", _chart),
    "wall": ("wall.html#cifar10/cifar10_kappa025/cifar10_cascade", "dark", _nothing),
    "image": ("wall.html#mnist/mnist_kappa000/mnist_cascade/4", "light", _open_image),
    "prove": ("prove.html#mnist_kappa000", "dark", _prove),
}


def picture(png: bytes) -> bytes:
    """The screenshot as WebP of at most LARGEST bytes."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in range(88, 20, -6):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if len(buffer.getvalue()) <= LARGEST:
            return buffer.getvalue()
    raise click.ClickException("the picture does not fit")


@click.command()
@click.argument("site", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=FIGURES, show_default=True)
def main(site: Path, out: Path) -> None:
    """Take the pictures of the built gallery in the folder SITE."""
    from playwright.sync_api import sync_playwright

    executable = browser_executable()
    if executable is None:
        raise click.ClickException(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    out.mkdir(parents=True, exist_ok=True)
    with served(site) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=executable, headless=True, args=ARGUMENTS.split())
        for name, (path, scheme, prepare) in PICTURES.items():
            context = browser.new_context(viewport=SIZE, color_scheme=scheme, device_scale_factor=SCALE)
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.goto(address + path)
            page.wait_for_load_state("networkidle")
            prepare(page)
            page.mouse.move(0, 0)
            content = picture(page.screenshot())
            (out / f"gallery-{name}.webp").write_bytes(content)
            click.echo(f"gallery-{name}.webp: {len(content):,} bytes")
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
