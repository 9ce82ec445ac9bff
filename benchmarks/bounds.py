"""Radii, time and memory of each bound: python benchmarks/bounds.py [--n 20] [--alpha-n 5] [--model NAME ...]
                                                      [--budget 120] [--minutes 60] [--row-minutes 10]

For every bundled model (no cascades) and every method, the first N test images: each correct one starts from its IBP
radius and gets the method's radius, on its own. Every (model, method) runs in a process of its own, so that its peak
memory is its own. Finished images are kept in a state file: the same command goes on where it stopped, or was
killed, or where --minutes were over. --row-minutes is for networks on which a method takes minutes an image: a row ends
there, with as many images as it has (its n says so), and the next row begins. With --write the table in docs/bounds.md
is replaced. Images measured under another --budget, or of other weights, are no part of it.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch

import acert_zoo
from acert_zoo.bounds.crown_radius import certified_radius_lirpa
from acert_zoo.bounds.radius_search import certified_radius
from acert_zoo.data import datasets
from acert_zoo.errors import AcertZooError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import CROWN_METHODS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "bounds.md"
BEGIN, END = "<!-- begin: benchmarks/bounds.py -->", "<!-- end: benchmarks/bounds.py -->"
STOPPED = 3  # exit status of a row that time was over for
EPS = {"cifar10": ("2/255", "8/255"), "mnist": ("0.1", "0.3"), "tinyimagenet": ("1/255",)}


def test_images(dataset: str, n: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """The first n test images as float32 pixels, their labels, and which set they are from."""
    try:
        images, labels = datasets.load_split(dataset, "test")
        pixels = datasets.to_pixels(images[:n].copy()).contiguous()
        return pixels, torch.from_numpy(labels[:n].copy()).long(), "test set"
    except AcertZooError:
        return (*acert_zoo.sample_data(dataset, n=n), "bundled test images")


def read_state(path: Path) -> list[dict[str, Any]]:
    """The finished images; a line that a killed run left torn is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def append(path: Path, row: dict[str, Any]) -> None:
    """One more line, on a line of its own whatever stands before it."""
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with open(path, "a") as file:
        file.write("\n" * torn + json.dumps(row) + "\n")


def key(model: Any, method: str, budget: float) -> dict[str, Any]:
    name, limit = f"{model.info.name}.v{model.info.version}", None if method == "ibp" else budget
    return {"model": name, "weights": model.weights_sha256, "method": method, "budget": limit}


def run_one(name: str, method: str, n: int, state: Path, budget: float, minutes: float) -> bool:
    """Certifies the images of one (model, method) that the state file does not hold yet; whether all are done."""
    began = time.monotonic()
    torch.set_num_threads(1)
    model = acert_zoo.load_model(name)
    images, labels, source = test_images(str(acert_zoo.model_info(name).dataset), n)
    this = key(model, method, budget)
    done = {row["image"] for row in read_state(state) if all(row.get(k) == v for k, v in this.items())}
    network = trace(model).detach()
    prediction = network(images).argmax(1)
    for i in range(len(images)):
        if i in done:
            continue
        if (time.monotonic() - began) / 60 > minutes:
            return False
        x, y = images[i : i + 1], labels[i : i + 1]
        row: dict[str, Any] = {**this, "image": i, "source": source, "correct": bool(prediction[i] == y)}
        started = time.perf_counter()
        radius = certified_radius(network, x, y).radius
        row |= {"radius": radius.item(), "by": "ibp", "rounding": "real-sound", "note": ""}
        if method != "ibp" and row["correct"]:
            started = time.perf_counter()
            found = certified_radius_lirpa(network, x, y, method=method, floor=radius, budget=budget)
            row["note"] = found.note[0]
            if found.method[0] != "ibp":
                row |= {"radius": found.radius.item(), "by": found.method[0], "rounding": found.rounding[0]}
        row["seconds"] = time.perf_counter() - started
        row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        append(state, row)
    return True


def table(state: Path, budget: float) -> str:
    """The results as Markdown; every row with its own n."""
    rows = [r for r in read_state(state) if r.get("budget") in (None, budget)]
    lines = [
        "| model | method | n | mean radius (pixel units of [0, 1]) | against IBP, same images | certified at "
        "| real-sound | limit met | seconds per correct image | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in acert_zoo.list_models():
        info = acert_zoo.model_info(name)
        if info.kind != "model":
            continue
        full = f"{info.name}.v{info.version}"
        rows_of_model = [r for r in rows if r["model"] == full and r["weights"] == info.sha256]
        baseline = {r["image"]: r["radius"] for r in rows_of_model if r["method"] == "ibp"}
        for method in ("ibp", *CROWN_METHODS):
            own = [r for r in rows_of_model if r["method"] == method and r["image"] in baseline]
            if not own:
                continue
            mean = sum(r["radius"] for r in own) / len(own)
            ibp = sum(baseline[r["image"]] for r in own) / len(own)
            certified = ", ".join(
                f"{eps}: {100 * sum(r['radius'] >= float(parse_eps(eps)) for r in own) / len(own):.1f} %"
                for eps in EPS[str(info.dataset)]
            )
            improved = [r for r in own if r["by"] != "ibp"]
            sound = f"{sum(r['rounding'] == 'real-sound' for r in own)} of {len(own)}"
            correct = [r for r in own if r["correct"]]
            seconds = sum(r["seconds"] for r in correct) / max(len(correct), 1)
            peak = max(r["peak_mib"] for r in own)
            gain = f"{100 * (mean / ibp - 1):+.1f} % ({len(improved)} of {len(correct)} larger)" if ibp else "-"
            lines.append(
                f"| {full} | {method} | {len(own)} | {mean:.5f} | {'' if method == 'ibp' else gain} | {certified} | "
                f"{sound} | {sum(bool(r['note']) for r in own)} | {seconds:.2f} | {peak:,.0f} MiB |"
            )
    return "\n".join(lines)


@click.command()
@click.option("--model", "models", multiple=True, help="Only these models.")
@click.option("--method", "methods", multiple=True, type=click.Choice(["ibp", *CROWN_METHODS]), help="Only these.")
@click.option("--n", default=20, show_default=True, help="Test images.")
@click.option("--alpha-n", default=5, show_default=True, help="Test images of alpha-crown.")
@click.option("--budget", default=120.0, show_default=True, help="Seconds an image may take.")
@click.option("--minutes", default=math.inf, help="Stop (resumable) after so long.")
@click.option("--row-minutes", default=math.inf, help="Go on to the next row (resumable) after so long.")
@click.option("--state", type=click.Path(path_type=Path), default=ROOT / "benchmarks" / "bounds.jsonl")
@click.option("--write", is_flag=True, help="Replace the table in docs/bounds.md.")
@click.option("--one", is_flag=True, hidden=True)
def main(models, methods, n, alpha_n, budget, minutes, row_minutes, state, write, one) -> None:
    methods, began = methods or ("ibp", *CROWN_METHODS), time.monotonic()
    if one:
        sys.exit(0 if run_one(models[0], methods[0], n, state, budget, minutes) else STOPPED)
    for name in models or acert_zoo.list_models():
        if acert_zoo.model_info(name).kind != "model":
            continue
        for method in methods:
            count = alpha_n if method == "alpha-crown" else n
            left = min(minutes - (time.monotonic() - began) / 60, row_minutes)
            command = [sys.executable, __file__, "--one", "--model", name, "--method", method, "--n", str(count)]
            command += ["--budget", str(budget), "--minutes", str(left), "--state", str(state)]
            status = subprocess.run(command).returncode
            if status not in (0, STOPPED):
                sys.exit(status)
            click.echo(f"{name} {method}: {'done' if status == 0 else 'not finished, run this again'}", err=True)
    shown = table(state, budget)
    click.echo(shown)
    if write:
        text = DOCS.read_text()
        before, rest = text.split(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{shown}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
