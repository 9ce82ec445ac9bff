"""The site's scripts and styles: npm packages as the lockfile pins them, bundled by esbuild into the built site."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from acert_zoo.errors import InvalidInputError, MissingDependencyError

NODE_VERSION = 20


def build_bundle(sources: Path, out: Path) -> None:
    """Bundles the scripts in `sources` (the checkout's folder `site`) into the folder `out`.

    npm's packages are fetched where they are not there yet, exactly those of package-lock.json.

    Raises:
        MissingDependencyError: Node.js or npm is not installed, or npm's packages cannot be fetched.
        InvalidInputError: `sources` is not that folder, or the bundler refuses.
    """
    if not (sources / "package-lock.json").is_file():
        raise InvalidInputError(f"{sources} does not hold the gallery's scripts; name a checkout of the repository")
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise MissingDependencyError(f"the gallery is bundled by Node.js {NODE_VERSION} or newer; install node and npm")
    if not (sources / "node_modules" / ".package-lock.json").is_file():
        fetched = _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], sources)
        if fetched.returncode:
            raise MissingDependencyError(f"npm ci failed in {sources}:\n{fetched.stderr.strip()[-2000:]}")
    bundled = _run([node, "build.mjs", str(out.resolve())], sources)
    if bundled.returncode:
        raise InvalidInputError(f"the gallery's scripts could not be bundled:\n{bundled.stderr.strip()[-2000:]}")


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
