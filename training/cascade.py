"""Chooses, draws and publishes cascades. Members and gates are chosen on the validation split, never on the test set.

    python training/cascade.py front --dataset cifar10 [--eps 2/255]
    python training/cascade.py add cifar10_cascade --dataset cifar10 --eps 2/255 --accuracy 76
    python training/cascade.py add NAME --dataset cifar10 --member A --member B --gate 2/255

`front` measures every registered model of the data set once (cached by the digest of its weights), prints the cascades
that no other beats in accuracy and ACR, or with --eps in accuracy and certified accuracy at eps; without --eps it draws
them beside the single models and the paper's curves. `add` takes the best of them for a wanted accuracy or robustness
(percentages), or the members and gates named, and evaluates it on the test set, once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np

import acert_zoo
from acert_zoo import Cascade
from acert_zoo.errors import AcertZooError
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.zoo import registry
from acert_zoo.zoo.model_info import ModelInfo
from training.cascades.members import Members, cap_of, measure_members
from training.cascades.search import Candidate, choose, search
from training.evaluate import evaluate_with_bar, summary
from training.report import tradeoff
from training.report.figure_style import Point
from training.report.zoo_entry import add_entry
from training.results.zoo_folder import ZooFolder

LICENSE = "Apache-2.0"
DRAWN = 20  # points of the front in the figure


def find_front(members: Members, *, depth: int, eps: str | None = None) -> list[Candidate]:
    """The cascades that no other beats in accuracy and ACR, or certified accuracy at `eps`."""
    wanted = None if eps is None else float(parse_eps(eps))
    return search(
        members.robust, members.accurate, members.truth, float(parse_eps(members.cap)), depth=depth, eps=wanted
    )


def figure_points(dataset: str, members: Members, front: Sequence[Candidate]) -> list[Point]:
    """The single models and a front of accuracy and ACR, as points of the trade-off figure."""
    radius = float(parse_eps(members.cap))
    common: dict[str, Any] = {"dataset": dataset, "eps_max": members.cap, "n": len(members.truth)}
    common["counted_on"] = "validation images, IBP in float32"
    points = []
    for m in members.robust:
        correct = m.label == members.truth
        acr = float(100 * np.where(correct, np.minimum(m.radius, radius), 0.0).mean() / radius)
        info = members.infos[m.name]
        accuracy = float(100 * correct.mean())
        points.append(
            Point(name=m.name, method=str(info.method), kappa=info.kappa, accuracy=accuracy, acr_percent=acr, **common)
        )
    for c in thinned([c for c in front if len(c.members) > 1], DRAWN):
        points.append(
            Point(
                name=describe(c), method="cascade", kappa=None, accuracy=c.accuracy, acr_percent=c.robustness, **common
            )
        )
    return points


def thinned(front: Sequence[Candidate], count: int) -> list[Candidate]:
    """At most `count` of the front, evenly spread."""
    if len(front) <= count:
        return list(front)
    return [front[round(i * (len(front) - 1) / (count - 1))] for i in range(count)]


def gate_text(gate: Fraction) -> str:
    """A gate as people write it: "1.7/255" where that is exact."""
    tenths = gate * 2550
    return f"{float(tenths) / 10:g}/255" if tenths.denominator == 1 else str(gate)


def describe(candidate: Candidate) -> str:
    """`A (2/255) B`: members with their gates, in units of 1/255."""
    gates = [f" ({gate_text(g)}) " for g in candidate.gates] + [""]
    return "".join(name + gate for name, gate in zip(candidate.members, gates, strict=True))


def add_cascade(
    name: str,
    members: Sequence[str],
    gates: Sequence[str],
    *,
    zoo: ZooFolder,
    wanted: dict[str, Any],
    data_root: str | None = None,
    limit: int | None = None,
    log: Any = lambda text: None,
) -> ModelInfo:
    """Writes the cascade's file, evaluates it on the test set, adds the registry record and renders the card.

    The same cascade again changes nothing; another one under the same name gets the next version.
    """
    models = [acert_zoo.load_model(member) for member in members]
    cascade = Cascade(models, gates).eval()
    infos: list[ModelInfo] = [m.info for m in models]  # type: ignore[misc]  # registered models have one
    dataset = str(infos[0].dataset)
    content = cascade.to_bytes()
    sha256 = str(cascade.weights_sha256)
    versions = [m for m in registry.read_registry(zoo.registry) if m.name == name]
    same = next((m for m in versions if m.sha256 == sha256), None)
    if same is not None:
        log(f"{same.versioned_name} is this cascade already")
        return same
    version = max((m.version for m in versions), default=0) + 1
    path = zoo.checkpoint(name, version).with_suffix(".json")
    record = {
        "name": name,
        "version": version,
        "kind": "cascade",
        "arch": "cascade",
        "arch_kwargs": {},
        "dataset": dataset,
        "method": "cascade",
        "eps_max": cap_of(infos),
        "file": path.relative_to(zoo.package).as_posix(),
        "sha256": sha256,
        "size": len(content),
        "parameters": sum(info.parameters or 0 for info in infos),
        "recipe": {
            "members": [i.versioned_name for i in infos],
            "gates": list(cascade.gate_texts),
            **wanted,
        },
        "training": {"seconds": sum(float(i.training.get("seconds", 0)) for i in infos)},
        "license": LICENSE,
    }
    ModelInfo.from_dict(record)  # a bad name is refused before the long part
    evaluation = evaluate_with_bar(
        cascade,
        dataset,
        name=name,
        version=version,
        weights_sha256=sha256,
        eps_max=str(record["eps_max"]),
        limit=limit,
        data_root=data_root,
    )
    log(summary(evaluation))
    return add_entry(zoo, record, evaluation, content)


def table(front: Sequence[Candidate], robustness: str = "ACR %") -> str:
    """The front in lines of text."""
    rows = [f"{'accuracy %':>10} {robustness:>11}  cascade"]
    return "\n".join(rows + [f"{c.accuracy:>10.2f} {c.robustness:>11.2f}  {describe(c)}" for c in front])


@click.group()
def main() -> None:
    """Choose, draw and publish cascades."""


@main.command("front")
@click.option("--dataset", default="cifar10", show_default=True)
@click.option("--data-root", help="Folder with <name>/train_images.npy (default: $ACERT_ZOO_DATA).")
@click.option("--depth", default=3, show_default=True, help="Most members of a cascade.")
@click.option("--eps", help="Certified accuracy at this eps (2/255) instead of ACR.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/cascades"))
def front_command(dataset: str, data_root: str | None, depth: int, eps: str | None, out: Path) -> None:
    """Print and draw the cascades that no other beats, on the validation split."""
    try:
        show = sys.stderr.isatty()
        members = measure_members(dataset, data_root, out / "measured", show=show)
        front = find_front(members, depth=depth, eps=eps)
        click.echo(table(thinned(front, 40), "ACR %" if eps is None else "certified %"))
        if eps is None:
            for path in tradeoff.render(out, f"cascades-{dataset}", "tradeoff", figure_points(dataset, members, front)):
                click.echo(path)
    except AcertZooError as error:
        raise click.UsageError(str(error)) from None


@main.command("add")
@click.argument("name")
@click.option("--dataset", default="cifar10", show_default=True)
@click.option("--accuracy", type=float, help="Wanted accuracy in percent: the most robust cascade with it is taken.")
@click.option(
    "--robustness",
    type=float,
    help="Wanted ACR in percent of eps_max (with --eps: certified accuracy there): the most accurate with it is taken.",
)
@click.option("--eps", help="Certified accuracy at this eps (2/255) instead of ACR.")
@click.option("--member", "members", multiple=True, help="Members named by hand, in order.")
@click.option("--gate", "gates", multiple=True, help="Their gates, e.g. 2/255.")
@click.option("--data-root", help="Folder with <name>/test_images.npy (default: $ACERT_ZOO_DATA).")
@click.option("--depth", default=3, show_default=True, help="Most members of a cascade.")
@click.option("--limit", type=click.IntRange(min=1), help="Evaluate only the first LIMIT test images (trials).")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/cascades"))
@click.option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Checkout to write into.")
def add_command(
    name: str,
    dataset: str,
    accuracy: float | None,
    robustness: float | None,
    eps: str | None,
    members: tuple[str, ...],
    gates: tuple[str, ...],
    data_root: str | None,
    depth: int,
    limit: int | None,
    out: Path,
    root: Path | None,
) -> None:
    """Add the cascade NAME to the zoo."""
    try:
        wanted: dict[str, Any] = {"chosen": "by hand"}
        chosen: Sequence[str] = gates
        if not members:
            show = sys.stderr.isatty()
            measured = measure_members(dataset, data_root, out / "measured", show=show)
            best = choose(find_front(measured, depth=depth, eps=eps), accuracy=accuracy, robustness=robustness)
            members, chosen = best.members, [gate_text(g) for g in best.gates]
            what = "acr_percent" if eps is None else f"certified_percent_at_{eps}"
            wanted = {"chosen": "on the validation split", "wanted_accuracy": accuracy, f"wanted_{what}": robustness}
            wanted |= {"validation_accuracy": best.accuracy, f"validation_{what}": best.robustness}
            click.echo(f"chosen: {describe(best)}")
        zoo = ZooFolder(root) if root else ZooFolder()
        info = add_cascade(
            name, members, chosen, zoo=zoo, wanted=wanted, data_root=data_root, limit=limit, log=click.echo
        )
    except AcertZooError as error:
        raise click.UsageError(str(error)) from None
    click.echo(f"{info.versioned_name}  {info.file}  {info.sha256}")


if __name__ == "__main__":
    main()
