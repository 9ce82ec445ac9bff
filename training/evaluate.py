"""Evaluates a run or a zoo model on the test set, once: python training/evaluate.py --model NAME | --run RUN.

Accuracy, ACR and certified accuracy from rounding-sound IBP radii. `torchrun --nproc-per-node N -- training/evaluate.py
--run RUN` (torchrun needs the `--`) shares the images out among N processes with identical results: the set is cut into
the same chunks whatever N is, and each chunk is certified by one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import Progress
from torch import nn

from acert_zoo.certificates.certify import certify
from acert_zoo.data import datasets
from acert_zoo.data.registration import register_own
from acert_zoo.errors import AcertZooError, InvalidInputError
from acert_zoo.exact_numbers import decimal_down
from training.compute import distributed
from training.compute.environment import versions
from training.report import cards
from training.results.evaluation import Evaluation, differences
from training.results.seeds import store_seed
from training.results.subject import run_subject, zoo_subject
from training.results.zoo_folder import ZooFolder, dump_json, write_atomic
from training.run.deployment import read_run

CHUNK = 500


def evaluate(
    model: nn.Module,
    dataset: str,
    *,
    name: str,
    version: int | None,
    weights_sha256: str,
    eps_max: str,
    limit: int | None = None,
    data_root: str | None = None,
    rounding: str = "real-sound",
    progress: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Certifies the first `limit` (default: all) test images of `dataset`, shared among torch.distributed's processes.

    `model` takes raw pixels in [0, 1], in eval mode. Every process returns the whole result.
    """
    began = time.monotonic()
    images, labels = datasets.load_split(dataset, "test", data_root)
    total = len(labels)
    if limit is not None and limit < 1:
        raise InvalidInputError(f"limit is {limit}; expected a positive number of images")
    n = total if limit is None else min(limit, total)
    rank, world = distributed.rank(), distributed.world_size()
    radius = torch.zeros(n, dtype=torch.float64)
    correct = torch.zeros(n, dtype=torch.int64)
    for start in range(rank * CHUNK, n, world * CHUNK):
        part = slice(start, min(start + CHUNK, n))
        result = certify(
            model,
            datasets.to_pixels(np.array(images[part])),
            torch.from_numpy(np.array(labels[part])),
            method="ibp",
            rounding=rounding,
        )
        radius[part] = torch.as_tensor(np.asarray(result.radius), dtype=torch.float64)
        correct[part] = torch.as_tensor(np.asarray(result.prediction) == np.asarray(result.label)).long()
        progress(part.stop - part.start)
    if world > 1:  # every entry is written by one process and 0 elsewhere: the sum is exact
        dist.all_reduce(radius)
        dist.all_reduce(correct)
    return Evaluation(
        name=name,
        version=version,
        weights_sha256=weights_sha256,
        dataset=dataset,
        split="test",
        eps_max=eps_max,
        radius=radius.numpy(),
        correct=correct.bool().numpy(),
        total=total,
        rounding=rounding,
        label=np.array(labels[:n], dtype=np.int64),
        inexact=tuple(i for i in sorted(datasets.inexact_test_images(dataset, data_root)) if i < n),
        environment={
            "seconds": round(time.monotonic() - began, 1),
            "processes": world,
            "threads": torch.get_num_threads(),
            "versions": versions(),
        },
    )


def evaluate_with_bar(model: nn.Module, dataset: str, *, show: bool = True, **options: Any) -> Evaluation:
    """`evaluate` under a progress bar (on a terminal, in the first process only)."""
    console = Console(stderr=True)
    total = options.get("limit") or len(datasets.load_split(dataset, "test", options.get("data_root"))[1])
    with Progress(console=console, disable=not (show and console.is_terminal), transient=True) as bar:
        task = bar.add_task(f"certifying {dataset}", total=total)
        return evaluate(model, dataset, progress=lambda k: bar.advance(task, k), **options)


def summary(evaluation: Evaluation) -> str:
    """The result in a few lines of text; percentages are rounded down."""
    lines = [
        f"{evaluation.name}: {evaluation.n:,} of {evaluation.total:,} {evaluation.dataset} test images, "
        f"{evaluation.method}, {evaluation.rounding}, {evaluation.environment.get('seconds', '?')} s"
    ]
    for m in evaluation.metrics():
        label = {"accuracy": "accuracy", "acr": "ACR", "acr_percent": f"ACR, % of {m['eps']}"}.get(
            m["metric"], f"certified accuracy at {m['eps']}"
        )
        digits = 6 if m["unit"] == "pixel" else 2
        lines.append(
            f"  {label:<32} {decimal_down(m['value'], digits):>9} {'' if m['unit'] == 'pixel' else '%'}".rstrip()
        )
    if evaluation.inexact:
        lines.append(
            f"  {len(evaluation.inexact)} of these test images are JPEG approximations of the originals in this copy "
            "of the data set"
        )
    return "\n".join(lines)


def put_into_zoo(zoo: ZooFolder, evaluation: Evaluation) -> None:
    """Replaces what the zoo says of a registered model by `evaluation`: stored radii, registry record, cards.

    Raises:
        InvalidInputError: the stored evaluation counts more images.
    """
    from acert_zoo.zoo import registry
    from training.report.zoo_entry import add_entry

    info = next(
        m
        for m in registry.read_registry(zoo.registry)
        if (m.name, m.version, m.sha256) == (evaluation.name, evaluation.version, evaluation.weights_sha256)
    )
    stored = max((m.n for m in info.metrics), default=0)
    if evaluation.n < stored:
        raise InvalidInputError(
            f"{info.versioned_name} has an evaluation of {stored} images; one of {evaluation.n} does not replace it"
        )
    add_entry(zoo, info.to_dict(), evaluation)


def compare_with_stored(zoo: ZooFolder, evaluation: Evaluation, name: str, version: int, *, err: bool) -> None:
    """Says whether an evaluation is the stored one, on stderr where `err`; exit status 1 where it is not."""
    found = differences(evaluation, zoo.evaluation(name, version), zoo.radii(name, version))
    for line in found[:20]:
        click.echo(line, err=True)
    if found:
        click.echo(f"{name}.v{version}: {len(found)} differences from the stored evaluation", err=True)
        raise SystemExit(1)
    click.echo(f"{name}.v{version}: reproduces the stored evaluation", err=err)


def one_per_dataset() -> list[str]:
    """The first certified model of each data set in the registry, by name."""
    from acert_zoo.zoo import registry

    infos = [registry.model_info(name) for name in reversed(registry.list_models())]
    return sorted({str(i.dataset): i.name for i in infos if i.kind == "model" and i.method != "standard"}.values())


@click.command()
@click.option("--one-per-dataset", "names_only", is_flag=True, help="Only print one model's name for each data set.")
@click.option("--model", "model_name", help="A model of the zoo.")
@click.option("--run", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A training run's folder.")
@click.option("--data", "dataset", help="Data set (default: the model's own).")
@click.option("--data-root", help="Folder with <name>/test_images.npy (default: $ACERT_ZOO_DATA).")
@click.option("--dataset-file", type=click.Path(), help="Registration of a data set of your own.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first LIMIT test images.")
@click.option("--rounding", default="real-sound", show_default=True)
@click.option(
    "--check", is_flag=True, help="Compare with the stored evaluation, radius by radius; exit 1 on a difference."
)
@click.option("--store", is_flag=True, help="Put the result into the registry, the stored evaluation and the card.")
@click.option(
    "--as-seed-of", metavar="NAME", help="With --run: keep the figures beside those of NAME, as another seed."
)
@click.option("--decide", "decide_eps", metavar="EPS", help="Decide at EPS instead (training/results/decide.py).")
@click.option("--budget", type=float, default=60.0, show_default=True, help="With --decide: seconds an image.")
@click.option("--verdicts", type=click.Path(file_okay=False, path_type=Path), help="With --decide: folder of verdicts.")
@click.option("--autoattack", is_flag=True, help="With --decide: AutoAttack on the images left undecided.")
@click.option("--shard", metavar="K/N", help="With --decide: only every N-th image, from the K-th on.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Checkout that holds evaluations/.")
def main(
    names_only: bool,
    model_name: str | None,
    run: Path | None,
    dataset: str | None,
    data_root: str | None,
    dataset_file: str | None,
    limit: int | None,
    rounding: str,
    check: bool,
    store: bool,
    as_seed_of: str | None,
    decide_eps: str | None,
    budget: float,
    verdicts: Path | None,
    autoattack: bool,
    shard: str | None,
    out: Path | None,
    as_json: bool,
    root: Path | None,
) -> None:
    """Evaluate on the test set: accuracy, ACR, certified accuracy, from rounding-sound IBP radii."""
    if names_only:
        click.echo("\n".join(one_per_dataset()))
        return
    if (model_name is None) == (run is None):
        raise click.UsageError("name either --model NAME or --run RUN")
    if (check or store) and model_name is None:
        raise click.UsageError("--check and --store are for a registered model: name it with --model")
    if as_seed_of and (run is None or limit is not None):
        raise click.UsageError("--as-seed-of is for the whole test set and a run: name it with --run")
    if check and store:
        raise click.UsageError("--check compares with the stored evaluation, --store replaces it: give one of them")
    if decide_eps is not None:
        if model_name is None or verdicts is None or limit is None:
            raise click.UsageError("--decide needs --model, --limit and --verdicts")
        from training.results.decide import decide_and_report

        zoo = ZooFolder(root) if root else ZooFolder()
        options = {"store_it": store, "ensemble": autoattack}
        decide_and_report(zoo, model_name, decide_eps, limit, verdicts, budget, shard, data_root, **options)
        return
    distributed.initialize("cpu")
    first = distributed.rank() == 0
    try:
        register_own(data_root, dataset_file, run)
        subject = run_subject(run) if run is not None else zoo_subject(str(model_name))
        if dataset not in (None, subject.dataset):
            raise InvalidInputError(
                f"{subject.name} was trained on {subject.dataset}; it cannot be evaluated on {dataset}"
            )
        evaluation = evaluate_with_bar(
            subject.model,
            subject.dataset,
            show=first,
            name=subject.name,
            version=subject.version,
            weights_sha256=subject.sha256,
            eps_max=subject.eps_max,
            limit=limit,
            data_root=data_root,
            rounding=rounding,
        )
        if not first:
            return
        document = dump_json(evaluation.to_dict())
        if out or run:
            write_atomic(out or run / "evaluation.json", document)  # type: ignore[operator]
        click.echo(document if as_json else summary(evaluation), nl=not as_json)
        zoo = ZooFolder(root) if root else ZooFolder()
        if store:
            put_into_zoo(zoo, evaluation)
        if as_seed_of and run is not None:
            store_seed(zoo, as_seed_of, read_run(run)[0].to_dict(), evaluation)
            cards.render_all(zoo)
        if check and subject.version is not None:
            compare_with_stored(zoo, evaluation, subject.name, subject.version, err=as_json)
    except AcertZooError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    finally:
        distributed.shutdown()


if __name__ == "__main__":
    main()
