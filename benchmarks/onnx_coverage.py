"""How many ONNX files of a folder can be read: each one loaded and compared with onnxruntime, or refused with a reason.

    python benchmarks/onnx_coverage.py FOLDER [FOLDER ...] [--max-mb 200] [--json FILE]

Files are .onnx or .onnx.gz; files of equal content count once. Reading runs each on six random inputs, its own and
onnxruntime's answers having to agree to what rounding explains. "Image classifiers" are files with 10 to 1,000 outputs
whose input is an image (three axes, or a square number of entries) of at least 784 numbers.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from acert_zoo.errors import AcertZooError
from acert_zoo.network.onnx.files import load_onnx


@dataclass(frozen=True)
class Row:
    """One file: what became of it, and why."""

    file: str
    megabytes: float
    image_classifier: bool
    result: str  # "read", "refused" or "skipped"
    reason: str
    seconds: float


def files(folders: list[Path]) -> Iterator[tuple[Path, bytes]]:
    """Every file once, with its unpacked content."""
    seen = set()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith((".onnx", ".onnx.gz"))):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            digest = hashlib.sha256(content).digest()
            if digest not in seen:
                seen.add(digest)
                yield path, content


def is_image_classifier(content: bytes) -> bool:
    """By its declared input and output alone."""
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception:  # not an ONNX file
        return False
    constants = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        return False
    sizes, outputs = (
        [d.dim_value or 1 for d in info.type.tensor_type.shape.dim] for info in (inputs[0], graph.output[0])
    )
    n, k = math.prod(sizes), math.prod(outputs)
    return n >= 784 and 10 <= k <= 1000 and (len(sizes) == 4 or math.isqrt(n) ** 2 == n)


def read(path: Path, content: bytes, limit: float) -> Row:
    """Loads one file."""
    name, size, classifier = str(path), len(content) / 1e6, is_image_classifier(content)
    if size > limit:
        return Row(name, size, classifier, "skipped", f"larger than {limit:g} MB", 0.0)
    started = time.perf_counter()
    try:
        model = load_onnx(path, classifier=classifier)
        result, reason = "read", f"{len(model.network.steps)} steps"
    except AcertZooError as error:
        result, reason = "refused", f"{type(error).__name__}: {str(error).split('; supported')[0]}"
    return Row(name, size, classifier, result, reason, time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--max-mb", type=float, default=200, help="larger files are skipped and counted as such")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    rows = []
    for path, content in files(options.folders):
        row = read(path, content, options.max_mb)
        rows.append(row)
        mark = " (image classifier)" if row.image_classifier else ""
        print(f"{row.result:8s}{row.seconds:7.1f} s  {row.file}{mark}: {row.reason[:160]}", flush=True)
    for title, chosen in (("all files", rows), ("image classifiers", [r for r in rows if r.image_classifier])):
        counts = Counter(r.result for r in chosen)
        shown = ", ".join(f"{counts[k]} {k}" for k in ("read", "refused", "skipped"))
        print(f"{title}: {len(chosen)} of different content: {shown}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n")
    sys.exit(0 if rows else 1)


if __name__ == "__main__":
    main()
