"""Every certified-training method at equal cost: the same network, optimiser, data and seconds, as many settings each.

    python benchmarks/methods.py [--epochs 6] [--eps 2/255] [--images 100] [--budget 4] [--out runs/methods] [--dry]

A method is run once for each value of the one number that moves it between accuracy and robustness; nothing else of it
is tuned. First the steps of all methods are timed in turns, from a bundled checkpoint at full radius; `--epochs` are
ACERT's, and another method gets as many as cost the same (at least one). Reported for each run, on the validation
split: accuracy, certified accuracy at `--eps` by IBP (float32), and on its first `--images` images the share that
complete verification proves (`acert_zoo.decide`, rounding-sound) and leaves undecided. A run that another one beats in
accuracy and in certified accuracy by the better verifier is not on the front. Every run is a run folder of
training/train.py: an interrupted benchmark goes on where it was. Not part of `make bench`: it takes hours of a core.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import _measure
import click
import torch
from _runs import finish, run_options
from training_step import small_root

import acert_zoo
from acert_zoo.data import datasets
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import AcertZooError
from training.recipes.recipe import Recipe, load_recipe
from training.run.deployment import deployed_model, read_run
from training.run.loop import Trainer

KAPPAS = ("0", "0.25", "0.5", "0.75")
SHARES = ("0.3", "0.1", "0.03", "0.01")
# Method -> the key that moves it along its front, its values (from robust to accurate), and what else it needs. Radii:
# somewhat above the 2/255 that is certified; ACERT chooses its own below a larger one (docs/training-results.md).
METHODS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "acert": ("kappa", KAPPAS, ("radius.eps_max=3/255",)),
    "ibp": ("kappa", KAPPAS, ()),
    "crown-ibp": ("kappa", KAPPAS, ()),
    "sabr": ("sabr.share", ("0.7", "0.4", "0.2", "0.1"), ("kappa=0",)),
    "mtl-ibp": ("expressive.share", SHARES, ("kappa=0",)),
    "acert-mtl": ("expressive.share", SHARES, ("kappa=0", "radius.eps_max=3/255")),
}
BASE = ("optimizer.name=muon", "optimizer.lr=4e-3", "precision=bfloat16", "compile=true", "radius.eps_max=2.2/255")
TIMED_STEPS = 6


def settings(method: str, value: str) -> list[str]:
    key, _, extra = METHODS[method]
    return [*BASE, f"objective={method}", *extra, f"{key}={value}"]


def recipe_of(name: str, method: str, value: str, epochs: int, seed: int, overrides: tuple[str, ...]) -> Recipe:
    """An eighth of the epochs before the ramp, half of them ramp; looked at once, at the end."""
    short = [f"epochs={epochs}", f"radius.first_epochs={epochs / 8}", f"radius.ramp_epochs={epochs / 2}"]
    return load_recipe(name, [*settings(method, value), *short, f"validate_every={epochs}", f"seed={seed}", *overrides])


def step_seconds(name: str, model: str, overrides: tuple[str, ...]) -> dict[str, float]:
    """Seconds of a step of each method, in turns, at full radius from the checkpoint `model` ("": from the start)."""
    at = ["radius.first_epochs=0", "radius.ramp_epochs=0", "validation_images=1", "optimizer.lr=1e-4"]
    at += [f'init_from="{model}"'] if model else []
    with tempfile.TemporaryDirectory() as folder:
        base = load_recipe(name)
        root = small_root(Path(folder), base, TIMED_STEPS * base.batch_size)
        recipes = {m: load_recipe(name, [*settings(m, v[1]), *at, *overrides]) for m, (_, v, _) in METHODS.items()}
        trainers = {method: Trainer(recipe, root) for method, recipe in recipes.items()}
    for trainer in trainers.values():  # compiles what is to be compiled, and ACERT learns the images' radii
        for _ in range(TIMED_STEPS):
            trainer.train_step()
        trainer._merge_scales()
    times = _measure.interleaved({method: trainer.train_step for method, trainer in trainers.items()}, TIMED_STEPS)
    return {method: statistics.median(spent) for method, spent in times.items()}


def plan_of(out: Path, name: str, model: str, epochs: int, overrides: tuple[str, ...]) -> dict[str, int]:
    """Epochs of each method, kept in OUT/plan.json so that a later call trains by the same timing."""
    path = out / "plan.json"
    if not path.exists():
        seconds = step_seconds(name, model, overrides)
        shares = {method: seconds["acert"] / spent for method, spent in seconds.items()}
        plan = {method: max(1, round(epochs * share)) for method, share in shares.items()}
        out.mkdir(parents=True, exist_ok=True)
        milliseconds = {method: round(1000 * spent, 1) for method, spent in seconds.items()}
        path.write_text(json.dumps({"epochs": plan, "step_ms": milliseconds}, indent=1) + "\n")
    kept: dict[str, int] = json.loads(path.read_text())["epochs"]
    return kept


def decided(folder: Path, eps: str, images: int, budget: float, data_root: str | None) -> dict[str, float]:
    """Shares (%) proved and undecided of the first validation images, kept in the run's folder."""
    path = folder / f"decided-{eps.replace('/', '_')}-{images}-{budget:g}.json"
    if not path.exists():
        recipe, state = read_run(folder)
        pixels, labels = datasets.load_split(recipe.dataset, "val", data_root)
        result = acert_zoo.decide(
            deployed_model(recipe, state).eval(),
            datasets.to_pixels(pixels[:images].copy()),
            torch.as_tensor(labels[:images].copy()).long(),
            eps=eps,
            budget=budget,
        )
        certified = 100 * result.certified_accuracy
        values = {"decided": certified, "undecided": 100 * result.attacked_accuracy - certified}
        path.write_text(json.dumps(values) + "\n")
    values = json.loads(path.read_text())
    return values


def on_front(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether no other run is at least as good in accuracy and in certified accuracy (by its better verifier)."""

    def figures(r: dict[str, Any]) -> tuple[float, float]:
        return r["accuracy"], max(r["ibp"], r["decided"])

    mine = figures(row)
    return not any(other != mine and all(map(float.__ge__, other, mine)) for other in map(figures, rows))


def table(rows: list[dict[str, Any]], eps: str, images: int) -> str:
    heads = ["method", "setting", "epochs", "s", "accuracy, %", f"at {eps} by IBP, %"]
    heads += [f"by any method, % of {images}", "undecided, %", "on the front"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        figures = [f"{row[key]:.2f}" for key in ("accuracy", "ibp")] + [
            f"{row[k]:.1f}" for k in ("decided", "undecided")
        ]
        cells = [row["method"], row["setting"], str(row["epochs"]), f"{row['seconds']:.0f}", *figures]
        lines.append("| " + " | ".join([*cells, "yes" if on_front(row, rows) else ""]) + " |")
    return "\n".join(lines)


@click.command()
@run_options
@click.option("--model", default="cifar10_kappa025", show_default=True, help='Timed from this checkpoint; "": none.')
@click.option("--method", "chosen", multiple=True, type=click.Choice(list(METHODS)), help="Only these.")
@click.option("--epochs", default=6, show_default=True, type=click.IntRange(1), help="Epochs of ACERT.")
@click.option("--seed", default=0, show_default=True)
@click.option("--eps", default="2/255", show_default=True, help="One of the data set's reported radii.")
@click.option("--images", default=100, show_default=True, type=click.IntRange(1), help="Decided completely.")
@click.option("--budget", default=4.0, show_default=True, help="Seconds an image of complete verification.")
@click.option("--out", default="runs/methods", show_default=True, type=click.Path(path_type=Path))
def main(
    recipe: str,
    model: str,
    chosen: tuple[str, ...],
    epochs: int,
    seed: int,
    eps: str,
    images: int,
    budget: float,
    overrides: tuple[str, ...],
    out: Path,
    data_root: str | None,
    threads: int,
    dry: bool,
    path: Path | None,
) -> None:
    """Train every method for the same time and print its accuracy and certified accuracy."""
    torch.set_num_threads(threads)
    runs = [(method, value) for method in chosen or METHODS for value in METHODS[method][1]]
    if dry:
        for method, value in runs:
            click.echo(f"{out / f'{method}-{value}-seed{seed}'}: {METHODS[method][0]} = {value}")
        return
    rows: list[dict[str, Any]] = []
    try:
        reported = dataset_info(load_recipe(recipe).dataset).reported_eps
        if eps not in reported:
            raise click.ClickException(f"--eps must be a reported radius of the data set, {reported}; got {eps}")
        plan = plan_of(out, recipe, model, epochs, overrides)
        for method, value in runs:
            folder = out / f"{method}-{value}-seed{seed}"
            last = finish(
                folder,
                recipe_of(recipe, method, value, plan[method], seed, overrides),
                data_root,
                f"{method}, {METHODS[method][0]} = {value}",
            )
            row = {"method": method, "setting": f"{METHODS[method][0]} = {value}", "epochs": plan[method]}
            row |= {"seconds": last["seconds"], "accuracy": last["accuracy"], "ibp": last[f"certified_{eps}"]}
            rows.append(row | decided(folder, eps, images, budget, data_root))
    except AcertZooError as error:
        raise click.ClickException(str(error)) from error
    click.echo("\n" + table(rows, eps, images))
    if path:
        path.write_text(json.dumps({"benchmark": "methods", "seed": seed, "results": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
