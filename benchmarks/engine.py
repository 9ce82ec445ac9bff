"""What the engine costs: python benchmarks/engine.py [efficiency|tiny|driver ...] [--json FILE]

efficiency: images a second of two Ray workers of one thread over one, the start of the session and the first shard of
each worker not counted. Needs two free cores.
tiny: seconds that certifying the bundled images on Ray takes beyond the plain run, start and end of Ray included; in
two shards, and in one, for which no session of Ray begins.
driver: peak memory of the driver's loop and files for 10^5 and for 10^6 images, whose radii are simulated: what grows
with their number would grow without bound.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from _measure import report, seconds
from torch import Tensor

import acert_zoo
from acert_zoo.certificates.certify_dataset import run_shards
from acert_zoo.certificates.file import format_file
from acert_zoo.certificates.lines import Header, Line
from acert_zoo.certificates.open_engine import open_engine
from acert_zoo.certificates.shard_folder import Plan, ShardFolder
from acert_zoo.data.array_source import SplitSource
from acert_zoo.data.registration import dataset_info

PARTS = ("efficiency", "tiny", "driver")
DIGEST = "0" * 64
HEADER = Header(
    package_version="0", model=None, model_version=None, weights_sha256=None, network_sha256=DIGEST, method="ibp",
    rounding="real-sound", certifies="prediction", dataset=None, split=None, n=0, created="2026-01-01T00:00:00+00:00",
)  # fmt: skip


@dataclass(frozen=True)
class Numbered:
    """`n` images that nobody reads."""

    n: int
    description = "simulated images"
    dataset = split = None
    labelled = False
    fingerprint = "simulated"

    def __len__(self) -> int:
        return self.n

    def ids(self, rows: range) -> list[str]:
        return [str(i) for i in rows]

    def find(self, name: str) -> int | None:
        return int(name)

    def read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError


class Simulated:
    """A job whose radii cost nothing."""

    def prepare(self) -> Callable[[range], bytes]:
        return lambda rows: format_file(replace(HEADER, n=len(rows)), [self.line(i) for i in rows])

    @staticmethod
    def line(i: int) -> Line:
        return Line(
            id=str(i), pixel_sha256=DIGEST, label=3, prediction=3, certifies="prediction", margin=1e-05, method="ibp",
            rounding="real-sound", radius=repr(0.01 + i * 1e-9), seconds=0.001953125,
        )  # fmt: skip


def driver(n: int) -> dict[str, float]:
    """Runs `n` simulated images through the driver; its peak memory in MiB, and bytes of a certificate."""
    with tempfile.TemporaryDirectory() as name:
        folder, source = ShardFolder(name), Numbered(n)
        plan = Plan(n, 512, 256, 1, source.fingerprint, {}, replace(HEADER, n=n))
        started = time.perf_counter()
        with folder.taken(plan) as plan:
            run_shards(open_engine("local"), Simulated(), plan, folder, source)
        spent = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.files())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "bytes": size / n, "microseconds": 1e6 * spent / n}


def measured_driver() -> Iterator[tuple[str, Any, str]]:
    found = {}
    for n in (100_000, 1_000_000):
        command = [sys.executable, __file__, "--in-this-process", str(n)]
        found[n] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        yield f"peak of the driver for {n:,} images, MiB", found[n]["peak"], ""
    yield "growth from 10^5 to 10^6 images, MiB", found[1_000_000]["peak"] - found[100_000]["peak"], "flat"
    yield "bytes of a certificate", found[1_000_000]["bytes"], ""
    yield "microseconds of the driver an image, formatting included", found[1_000_000]["microseconds"], ""


def measured_tiny(model: str) -> Iterator[tuple[str, Any, str]]:
    images, labels = acert_zoo.sample_data("cifar10")
    acert_zoo.certify(model, images[:1], labels[:1])
    for size, shards in ((50, "two shards"), (100, "one shard")):
        plain = seconds(lambda: acert_zoo.certify(model, images, labels, batch_size=size))  # noqa: B023
        on_ray = seconds(lambda: on_one_worker(model, size))  # noqa: B023
        yield f"100 images in {shards}, plain run, s", plain, ""
        yield f"100 images in {shards}, one Ray worker, s", on_ray, ""
        yield f"cost of the engine, {shards}, s", on_ray - plain, "under 5"


def on_one_worker(model: str, size: int) -> None:
    options: dict[str, Any] = {"split": "samples", "batch_size": size, "shard_size": size}
    with tempfile.TemporaryDirectory() as out:
        acert_zoo.certify_dataset(model, "cifar10", out=out, engine="ray", workers=1, **options)


def measured_efficiency(model: str, n: int) -> Iterator[tuple[str, Any, str]]:
    """The rate between the second and the last shard of each run."""
    rates = {}
    source = SplitSource(dataset_info("cifar10"), "test")
    for workers in (1, 2):
        times: list[tuple[float, int]] = []

        def note(done: int, total: int, times: list[tuple[float, int]] = times) -> None:
            times.append((time.perf_counter(), done))

        with tempfile.TemporaryDirectory() as out:
            acert_zoo.certify_dataset(
                model,
                First(source, n),
                out=out,
                engine="ray",
                workers=workers,
                shard_size=256,
                progress=note,
            )
        (begin, before), (end, after) = times[workers], times[-1]
        rates[workers] = (after - before) / (end - begin)
        yield f"images a second, {workers} workers of one thread", rates[workers], ""
    yield "two workers over one", rates[2] / rates[1], "1.8"


@dataclass(frozen=True)
class First:
    """The first `n` images of a source."""

    source: SplitSource
    n: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.source, name)

    def __len__(self) -> int:
        return self.n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), help="all by default")
    parser.add_argument("--model", default="cifar10_kappa025")
    parser.add_argument("--n", type=int, default=5_120, help="images of the efficiency")
    parser.add_argument("--json", metavar="FILE", help="also write JSON ('-': to stdout, nothing else)")
    parser.add_argument("--in-this-process", type=int, metavar="N", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process is not None:
        print(json.dumps(driver(options.in_this_process)))
        return
    torch.set_num_threads(1)
    rows: list[tuple[str, Any, str]] = []
    for part in options.parts or PARTS:
        if part == "driver":
            rows += measured_driver()
        elif part == "tiny":
            rows += measured_tiny(options.model)
        else:
            rows += measured_efficiency(options.model, options.n)
    report("engine", rows, options.json)


if __name__ == "__main__":
    main()
