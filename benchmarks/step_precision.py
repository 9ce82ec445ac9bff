"""Seconds of a training step by precision: python benchmarks/step_precision.py [--recipe cifar10_eps3] [--steps 20].

Each row is a process of its own: the recipe's network at full radius, from random weights, on one thread. The first
row is a step as torch runs it by itself; the others add kept memory, bfloat16, compiled passes and huge pages, one
after the other. Medians over the measured steps.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _measure
import click
import torch
from training_step import small_root

from training.compute.memory import keep_freed_memory
from training.recipes.recipe import load_recipe
from training.run.loop import Trainer

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
ROWS: list[tuple[str, bool, list[str], dict[str, str]]] = [  # what, kept memory, recipe values, environment
    ("float32", False, ["precision=float32", "compile=false"], {}),
    ("+ kept memory", True, ["precision=float32", "compile=false"], {}),
    ("+ bfloat16", True, ["precision=bfloat16", "compile=false"], {}),
    ("+ compiled passes", True, ["precision=bfloat16", "compile=true"], {}),
    ("+ huge pages", True, ["precision=bfloat16", "compile=true"], HUGE_PAGES),
]


def seconds_of(recipe_name: str, changes: list[str], steps: int, keep: bool) -> list[float]:
    """Seconds of each measured step, after five that are not measured."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(1)
    fixed = ["radius.first_epochs=0", "radius.ramp_epochs=0", "validation_images=1", "optimizer.lr=1e-5"]
    recipe = load_recipe(recipe_name, [*changes, *fixed])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, small_root(Path(folder), recipe, 4 * recipe.batch_size))
    times = []
    for _ in range(5 + steps):
        began = time.perf_counter()
        trainer.train_step()
        times.append(time.perf_counter() - began)
    return times[5:]


@click.command()
@click.option("--recipe", default="cifar10_eps3", show_default=True)
@click.option("--objective", default="ibp", show_default=True, help="ibp costs the same at random weights and trained.")
@click.option("--steps", default=20, show_default=True)
@click.option("--json", "path", help='Write the results to this file ("-": only print them as JSON).')
@click.option("--row", type=int, hidden=True, help="Measure this row in this process and print its seconds.")
def main(recipe: str, objective: str, steps: int, path: str | None, row: int | None) -> None:
    """Seconds of a training step in float32 and in bfloat16."""
    if row is not None:
        _, keep, changes, _ = ROWS[row]
        click.echo(json.dumps(seconds_of(recipe, [*changes, f"objective={objective}"], steps, keep)))
        return
    medians = []
    for index, (_, _, _, environment) in enumerate(ROWS):
        options = ["--recipe", recipe, "--objective", objective, "--steps", str(steps), "--row", str(index)]
        done = subprocess.run(
            [sys.executable, __file__, *options],
            env=os.environ | {"GLIBC_TUNABLES": "", "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        medians.append(statistics.median(json.loads(done.stdout.splitlines()[-1])))
    rows = [
        (f"{name}: ms a step (times faster than the first)", f"{1000 * m:.0f} ({medians[0] / m:.2f})", "")
        for (name, *_), m in zip(ROWS, medians, strict=True)
    ]
    _measure.report("training step by precision", rows, path)


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # as training/train.py does, as a program of its own
    main()
