"""Does the cheap radius search cost quality? The same short run with the recipe's search and with one run to 1e-6.

    python benchmarks/radius_search_quality.py [--epochs 4] [--seeds 2] [--out runs/radius_search] [--dry]

Every run is a run folder of training/train.py, so that an interrupted benchmark goes on where it was. Reported are
accuracy, ACR and certified accuracies on the validation split (IBP in float32), for each seed and search, and the
difference that the search makes beside the one that the seed makes. Not part of `make bench`: four runs of CIFAR-10
take about three quarters of an hour of one core.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import click
import torch
from _runs import finish, run_options

from acert_zoo.errors import AcertZooError
from training.recipes.recipe import Recipe, load_recipe

SEARCHES = {
    "cheap": [],  # the recipe's own
    "to 1e-6": ["radius.evaluations=40", "radius.tolerance=1e-6"],
}
COLUMNS = {"accuracy": "accuracy, %", "acr_percent": "ACR, % of eps_max", "loss": "training loss"}


def recipe_of(name: str, search: str, seed: int, epochs: int, overrides: tuple[str, ...]) -> Recipe:
    """The named recipe shortened to `epochs`: an eighth of them before the ramp, half of them ramp."""
    short = [f"epochs={epochs}", f"radius.first_epochs={epochs / 8}", f"radius.ramp_epochs={epochs / 2}"]
    return load_recipe(name, [*short, f"seed={seed}", *SEARCHES[search], *overrides])


def table(results: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Markdown: a table of the runs, and one of what the search changes for each seed beside what the seed changes."""
    certified = [key for key in next(iter(results.values())) if key.startswith("certified_")]
    names = {**COLUMNS, **{key: f"certified at {key.removeprefix('certified_')}, %" for key in certified}}
    extra = {"evaluations": "IBP evaluations a sample", "mean_radius": "mean eps*"}
    lines = ["| search | seed | " + " | ".join([*names.values(), *extra.values(), "s"]) + " |"]
    lines.append("|---" * (len(names) + len(extra) + 3) + "|")
    for (search, seed), row in results.items():
        cells = [f"{row[key]:.2f}" for key in names] + [f"{row['evaluations']:.2f}", f"{row['mean_radius']:.5f}"]
        lines.append(f"| {search} | {seed} | " + " | ".join(cells) + f" | {row['seconds']:.0f} |")
    seeds = sorted({seed for _, seed in results})
    heads = ["cheap minus to 1e-6", *(f"seed {seed}" for seed in seeds), "mean", "largest minus smallest over seeds"]
    lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for key, name in names.items():
        values = {search: [results[search, seed][key] for seed in seeds] for search in SEARCHES}
        cheap, exact = values.values()
        gaps = [a - b for a, b in zip(cheap, exact, strict=True)]
        spread = max(max(v) - min(v) for v in values.values())
        cells = [f"{gap:+.3f}" for gap in (*gaps, statistics.mean(gaps))] + [f"{spread:.3f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command()
@run_options
@click.option("--epochs", default=4, show_default=True, type=click.IntRange(1))
@click.option("--seeds", default=2, show_default=True, type=click.IntRange(1))
@click.option("--out", default="runs/radius_search", show_default=True, type=click.Path(path_type=Path))
def main(
    recipe: str,
    epochs: int,
    seeds: int,
    overrides: tuple[str, ...],
    out: Path,
    data_root: str | None,
    threads: int,
    dry: bool,
    path: Path | None,
) -> None:
    """Accuracy and ACR with the cheap radius search and with the search run to 1e-6."""
    torch.set_num_threads(threads)
    results: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in range(seeds):
        for search in SEARCHES:
            folder = out / f"{search.replace(' ', '-')}-seed{seed}"
            try:
                settings = recipe_of(recipe, search, seed, epochs, overrides)
                r = settings.radius
                if dry:
                    limits = f"at most {r.evaluations} evaluations, tolerance {r.tolerance}"
                    click.echo(f"{folder}: {epochs} epochs, {limits}")
                    continue
                row = finish(folder, settings, data_root, f"{search}, seed {seed}")
            except AcertZooError as error:
                raise click.ClickException(str(error)) from error
            results[search, seed] = row
    if results:
        click.echo("\n" + table(results))
    if results and path:
        rows = [{"search": search, "seed": seed, **row} for (search, seed), row in results.items()]
        path.write_text(json.dumps({"benchmark": "radius search quality", "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
