"""Runs instances of a VNN-COMP benchmark and compares the answers with those that the competition's tools gave.

    python benchmarks/vnncomp.py 2022/benchmarks/mnist_fc --out mnist_fc.csv --known 2022_results/*/results.csv

Resumable: instances that OUT holds are not run again. CPU seconds are of this process; on a shared machine --stretch 4
allows four times the instance's limit of wall time, and an answer counts as in time if its CPU seconds are within the
limit. Exits with 1 where an answer contradicts one that two tools agree on.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
import torch

from acert_zoo.complete.property_verifier import PropertyVerifier
from acert_zoo.errors import AcertZooError
from acert_zoo.network.onnx.files import load_onnx
from acert_zoo.network.vnnlib.reader import read_property

FIELDS = ("net", "property", "limit", "answer", "cpu_seconds", "wall_seconds", "parts", "known", "note")
DECIDED = ("unsat", "sat")
WORDS = {"unsat": "unsat", "holds": "unsat", "sat": "sat", "violated": "sat"}  # of 2022, and of 2021
Instance = tuple[str, str, float]


def instances(folder: Path) -> list[Instance]:
    """(network, property, seconds) of the folder's instances.csv."""
    (path,) = folder.glob("*instances.csv")
    with path.open(newline="") as file:
        return [(row[0], row[1], float(row[2])) for row in csv.reader(file) if row]


def known_answers(category: str, files: Iterable[Path]) -> dict[tuple[str, str], Counter[str]]:
    """How many tools gave each answer, by the names of network and property."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for path in files:
        with path.open(newline="") as file:
            for row in csv.reader(file):
                answer = WORDS.get(row[4].lower()) if len(row) >= 5 and row[0] == category else None
                if answer is not None:
                    found.setdefault((Path(row[1]).name, Path(row[2]).name), Counter())[answer] += 1
    return found


def agreed(counts: Counter[str]) -> str:
    """The answer that at least two tools gave and no other tool denied, else ""."""
    return next((answer for answer, n in counts.items() if n >= 2 and len(counts) == 1), "")


def there(path: Path) -> Path:
    """The file, or its packed form."""
    return path if path.exists() else path.with_name(path.name + ".gz")


def run(folder: Path, instance: Instance, stretch: float) -> dict[str, object]:
    """One instance's row, but for what is known of it."""
    net, prop_file, limit = instance
    wall, cpu = time.perf_counter(), time.process_time()
    answer, parts, note = "error", 0, ""
    try:
        prop = read_property(there(folder / prop_file))
        model = load_onnx(there(folder / net), classifier=False)
        model.check_property(prop)
        verifier = PropertyVerifier(model.network, model.input_shape, outputs=model.file_outputs)
        result = verifier(prop, stretch * limit - (time.perf_counter() - wall))
        answer, parts = result.status, result.parts
    except AcertZooError as error:
        note = str(error)[:200]
    return {
        "net": Path(net).name,
        "property": Path(prop_file).name,
        "limit": limit,
        "answer": answer,
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "parts": parts,
        "note": note,
    }


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="CSV, appended to.")
@click.option("--known", type=click.Path(exists=True, path_type=Path), multiple=True, help="A tool's results.csv.")
@click.option("--sample", type=click.IntRange(min=1), help="Only so many instances, evenly spaced.")
@click.option("--only", multiple=True, help="Only instances whose names contain this, in this order; repeatable.")
@click.option("--limit", type=float, help="Seconds an instance, where the competition gives more.")
@click.option("--stretch", default=1.0, show_default=True, help="Wall time that is allowed, over the limit.")
def main(
    folder: Path,
    out: Path,
    known: tuple[Path, ...],
    sample: int | None,
    only: tuple[str, ...],
    limit: float | None,
    stretch: float,
) -> None:
    """Answers of the instances of FOLDER, against known ones."""
    torch.set_num_threads(1)
    answers = known_answers(folder.name, known)
    chosen = list(dict.fromkeys(i for word in only or ("",) for i in instances(folder) if word in i[0] + i[1]))
    if sample is not None and sample < len(chosen):
        chosen = [chosen[k * len(chosen) // sample] for k in range(sample)]
    rows: dict[tuple[str, str], dict[str, object]] = {}
    if out.exists():
        with out.open(newline="") as file:
            rows = {(row["net"], row["property"]): dict(row) for row in csv.DictReader(file)}
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not rows:
            writer.writeheader()
        for net, prop, seconds in chosen:
            key = Path(net).name, Path(prop).name
            if key not in rows:
                row = run(folder, (net, prop, min(seconds, limit or seconds)), stretch)
                row["known"] = agreed(answers.get(key, Counter()))
                rows[key] = row
                writer.writerow(row)
                file.flush()
    taken = [rows[Path(net).name, Path(prop).name] for net, prop, _ in chosen]
    decided = [r for r in taken if r["answer"] in DECIDED and float(str(r["cpu_seconds"])) <= float(str(r["limit"]))]
    wrong = [r for r in taken if r["answer"] in DECIDED and r["known"] and r["known"] != r["answer"]]
    both = sum(bool(r["known"]) for r in decided)
    counted = dict(Counter(str(r["answer"]) for r in taken))
    known_ones = sum(bool(r["known"]) for r in taken)
    print(f"{folder.name}: {len(taken)} instances {counted}, {len(decided)} decided in time")
    print(f"known: {known_ones}, of these decided in time: {both}; contradictions: {len(wrong)}")
    for r in wrong:
        print(f"CONTRADICTION {r['net']} {r['property']}: {r['answer']}, known {r['known']}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
