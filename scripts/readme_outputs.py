"""Reruns every command that README.md shows and puts its output below it.

    python scripts/readme_outputs.py [--check] [FILE]

A block to refresh is a fenced code block (`console` or `python`) followed by a marker and a fenced `text` block:

    ```console
    $ acert-zoo list
    ```
    <!-- output -->
    ```text
    ...
    ```

Python blocks are run first, as one session from top to bottom, then the commands, all in one empty folder (make: in the
repository), so a file that one block writes is there for the next. torch.hub finds this working tree in its cache as
the tag that README names. `<!-- output: first 12 lines -->` keeps the beginning only. `--check` writes nothing and
exits with 1 where an output differs from the file's; only durations may.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"```(?P<language>console|python)\n(?P<code>(?:(?!```).)*)```\n\n?"
    r"<!-- output(?:: first (?P<lines>\d+) lines)? -->\n```text\n(?P<output>(?:(?!```).)*)```",
    re.DOTALL,
)
_SEPARATOR = "=== readme block ==="


@click.command()
@click.option("--check", is_flag=True, help="Compare only.")
@click.argument("file", default=ROOT / "README.md", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path, check: bool) -> None:
    """Refresh the outputs shown in FILE."""
    text = file.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    if not blocks:
        raise click.ClickException(f"{file} has no block with an output")
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as torch_home:
        hub = Path(torch_home) / "hub"
        hub.mkdir()
        for slug, tag in set(re.findall(r"torch\.hub\.\w+\(\"([\w/-]+):([\w.]+)\"", text)):
            (hub / f"{slug}/{tag}".replace("/", "_")).symlink_to(ROOT)
        os.environ["TORCH_HOME"] = torch_home
        outputs = run_blocks(blocks, Path(work))
    parts, position = [], 0
    for block, output in zip(blocks, outputs, strict=True):
        parts += [text[position : block.start("output")], shorten(output, block["lines"])]
        position = block.end("output")
    refreshed = "".join([*parts, text[position:]])
    if check:
        if without_durations(refreshed) != without_durations(text):
            raise click.ClickException(f"{file} shows outdated outputs: make readme")
    elif refreshed != text:
        file.write_text(refreshed, encoding="utf-8")
    click.echo(f"{file}: {len(blocks)} outputs")


def run_blocks(blocks: list[re.Match[str]], folder: Path) -> list[str]:
    """The output of each block, in order."""
    python = iter(run_python([b["code"] for b in blocks if b["language"] == "python"], folder))
    return [next(python) if b["language"] == "python" else run_console(b["code"], folder) for b in blocks]


def run_python(codes: list[str], folder: Path) -> list[str]:
    if not codes:
        return []
    source = f"\nprint({_SEPARATOR!r})\n".join(codes)
    return [part.lstrip("\n") for part in run([sys.executable, "-c", source], folder).split(_SEPARATOR)]


def run_console(code: str, folder: Path) -> str:
    lines = [line[2:] for line in code.splitlines() if line.startswith("$ ")]
    return "".join(run(["bash", "-c", line], ROOT if line.startswith("make ") else folder) for line in lines)


def run(command: list[str], folder: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    outer = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    environment = {**outer, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{command[-1]}\nended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def shorten(output: str, lines: str | None) -> str:
    kept = [line.rstrip() for line in output.rstrip("\n").splitlines()]
    if lines is not None and len(kept) > int(lines):
        kept = [*kept[: int(lines)], "..."]
    return "".join(f"{line}\n" for line in kept)


def without_durations(text: str) -> str:
    return re.sub(r"\d+(\.\d+)? (ms|s|min)\b", "", text)


if __name__ == "__main__":
    main()
