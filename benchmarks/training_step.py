"""What an ACERT step costs beside a plain IBP step: the same network, batches, optimiser and schedule, side by side.

    python benchmarks/training_step.py [--recipe cifar10] [--model cifar10_kappa025] [--steps 30] [--json FILE]

The radius search only costs what it does in a run if margins and the remembered radii are those of a run. So both
trainers start from a bundled checkpoint, at full radius, and the ACERT trainer has already seen the images of the
measured steps once: a data root of few images is made, and its first epochs are not measured. Steps are timed in turns
(ACERT, then IBP, on the same images), and the ratio is the median of the ratios of each turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import _measure
import click
import numpy as np
import torch

import acert_zoo
from acert_zoo.data import datasets
from acert_zoo.data.registration import dataset_info
from acert_zoo.errors import DatasetNotFoundError
from training.recipes.recipe import Recipe, load_recipe
from training.run.loop import Trainer

WARM_EPOCHS = 2  # before the measured steps


def small_root(folder: Path, recipe: Recipe, n: int) -> str:
    """A data root with the first `n` training images beside the validation split.

    On a machine without the data set the bundled sample images, repeated, stand for them: only time is measured.
    """
    try:
        images, labels = datasets.load_split(recipe.dataset, "train")
    except DatasetNotFoundError:
        samples, targets = acert_zoo.sample_data(recipe.dataset)
        index = torch.arange(n) % len(samples)
        images = (samples[index] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        labels = targets[index].numpy()
    held_out = int(dataset_info(recipe.dataset).validation)
    total = n + held_out
    mine = np.sort(np.random.default_rng(0).permutation(total)[:-held_out])
    (folder / recipe.dataset).mkdir()
    for name, values in (("images", images), ("labels", labels)):
        array = np.zeros((total, *values.shape[1:]), values.dtype)
        array[mine] = values[np.arange(n) % len(values)]
        np.save(folder / recipe.dataset / f"train_{name}.npy", array)
    return str(folder)


def measure(recipe_name: str, model: str, kappa: float, steps: int, phase: str) -> list[tuple[str, object, str]]:
    """Rows of the report. `phase` "full": radius at eps_max, no regularisers; "ramp": half way up, with them."""
    base = load_recipe(recipe_name)
    first, ramp = (0.0, 0.0) if phase == "full" else (0.0, 2.0 * WARM_EPOCHS)
    overrides = [
        f"kappa={kappa!r}",
        f"radius.first_epochs={first}",
        f"radius.ramp_epochs={ramp}",
        f"epochs={4 * WARM_EPOCHS}",
        "validation_images=1",
        "optimizer.lr=1e-4",  # small: the state that is measured stays the checkpoint's
        *([f'init_from="{model}"'] if model else []),
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = small_root(Path(folder), base, steps * base.batch_size)
        trainers = {
            name: Trainer(load_recipe(recipe_name, [*overrides, f"objective={name}"]), root)
            for name in ("acert", "ibp")
        }
    for name, trainer in trainers.items():
        for _ in range(WARM_EPOCHS * steps if name == "acert" else 2):
            trainer.train_step()
            if trainer.step % trainer.steps_per_epoch == 0:
                trainer._merge_scales()
        trainer.step = WARM_EPOCHS * steps  # both at the same images and radius from here on
    times: dict[str, list[float]] = {name: [] for name in trainers}
    processor: dict[str, list[float]] = {name: [] for name in trainers}  # CPU seconds: what other work cannot stretch
    evaluations, shares, images = 0, [], 0
    for turn in range(steps):
        for name in ("acert", "ibp") if turn % 2 else ("ibp", "acert"):
            losses: list = []
            trainer = trainers[name]
            began = time.process_time()
            times[name].append(_measure.seconds(lambda t=trainer, out=losses: out.append(t.train_step())))  # type: ignore[misc]
            processor[name].append(time.process_time() - began)
            if name == "acert":
                evaluations += losses[0].evaluations
                images += len(losses[0].radius)
                shares.append((losses[0].radius > 0).double().mean().item())
    milliseconds = {name: 1000 * statistics.median(t) for name, t in times.items()}
    return [
        (
            f"{phase}: ACERT step / IBP step",
            _measure.median_ratio(times["acert"], times["ibp"]),
            "<= 1.5",
        ),
        (f"{phase}: the same in CPU time", _measure.median_ratio(processor["acert"], processor["ibp"]), ""),
        (f"{phase}: ACERT step, ms", milliseconds["acert"], ""),
        (f"{phase}: IBP step, ms", milliseconds["ibp"], ""),
        (f"{phase}: IBP evaluations of the search per sample", evaluations / images, ""),
        (f"{phase}: share of samples with a positive radius", statistics.mean(shares), ""),
    ]


@click.command()
@click.option("--recipe", default="cifar10", show_default=True)
@click.option("--model", default="cifar10_kappa025", show_default=True, help='Checkpoint to start from; "": none.')
@click.option("--kappa", default=0.25, show_default=True)
@click.option("--steps", default=30, show_default=True, help="Measured steps of each objective.")
@click.option("--threads", default=1, show_default=True)
@click.option("--json", "path", help='Write the results to this file ("-": only print them as JSON).')
def main(recipe: str, model: str, kappa: float, steps: int, threads: int, path: str | None) -> None:
    """Ratio of an ACERT step to an IBP step, and the IBP evaluations of the radius search."""
    torch.set_num_threads(threads)
    rows = [row for phase in ("full", "ramp") for row in measure(recipe, model, kappa, steps, phase)]
    _measure.report("training step", rows, path)


if __name__ == "__main__":
    main()
