"""`acert-zoo list` and `acert-zoo show`: the registry, read without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from acert_zoo.cli.terminal import print_facts, print_json, print_table
from acert_zoo.data.registration import class_names
from acert_zoo.exact_numbers import decimal_down

if TYPE_CHECKING:
    from acert_zoo.zoo.model_info import Metric, ModelInfo


SHOWN_CLASSES = 12


@click.command("list")
@click.argument("pattern", required=False)
@click.option("--dataset", help="Only the models of this data set.")
@click.option("--method", help="Only the models trained by this method.")
@click.option("--where", multiple=True, metavar="CONDITION", help="Only models with, e.g., 'accuracy>70'; repeatable.")
@click.option(
    "--sort", metavar="FIELD", help="Order by, e.g., certified@2/255, the best first; -FIELD: the worst first."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def list_(
    pattern: str | None,
    dataset: str | None,
    method: str | None,
    where: tuple[str, ...],
    sort: str | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List the models of the zoo with their test-set figures.

    PATTERN, --dataset and --method take wildcards: acert-zoo list 'cifar10_*'. Fields of --where and --sort: name,
    dataset, method, kind, kappa, accuracy, acr, acr_percent, certified@EPS, eps_max, parameters, size, hours, rounding,
    verifier, arch, license, version. A name starting with - is given as --sort=-accuracy.
    """
    from acert_zoo.zoo.registry import select_models

    if as_json and as_csv:
        raise click.UsageError("Give --json or --csv, not both.")
    infos = select_models(pattern, dataset=dataset, method=method, where=where, sort=sort)
    if as_json:
        print_json({"models": [info.to_dict() for info in infos]})
    elif as_csv:
        _print_csv(infos)
    elif not infos:
        click.echo("No models.", err=True)
    else:
        columns = ("model", "data set", "method", "kappa", "accuracy %", "certified % at eps", "ACR % of eps_max")
        print_table(columns, [_row(info) for info in infos], right=("kappa", "accuracy %", "ACR % of eps_max"))


def _print_csv(infos: list[ModelInfo]) -> None:
    """One line a model, with the columns of `acert_zoo.leaderboard`."""
    import csv
    import io

    from acert_zoo.zoo.leaderboard import leaderboard_row

    rows = [leaderboard_row(info) for info in infos]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    click.echo(text.getvalue(), nl=False)


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(name: str, as_json: bool) -> None:
    """Show all that is recorded of the model NAME."""
    from acert_zoo.zoo.registry import model_info

    info = model_info(name)
    if as_json:
        print_json(info.to_dict())
        return
    print_facts(info.versioned_name, _facts(info))
    if info.metrics:
        click.echo()
        columns = ("metric", "value", "eps", "images", "method", "rounding")
        print_table(columns, [_metric_row(m) for m in info.metrics], right=("value",))


def _row(info: ModelInfo) -> tuple[str, ...]:
    accuracy, acr = info.metric("accuracy"), info.metric("acr_percent")
    certified = [f"{_value(m)} at {m.eps}" for m in info.metrics if m.metric == "certified_accuracy"]
    return (
        info.name,
        info.dataset or "-",
        info.method or info.kind,
        "-" if info.kappa is None else f"{info.kappa:g}",
        _value(accuracy) if accuracy else "-",
        ", ".join(certified) or "-",
        _value(acr) if acr else "-",
    )


def _facts(info: ModelInfo) -> list[tuple[str, str]]:
    training = dict(info.training)
    facts = [
        ("data set", info.dataset),
        ("classes", _classes(info.dataset)),
        (
            "trained with",
            " ".join(filter(None, (info.method, None if info.kappa is None else f"kappa {info.kappa:g}"))),
        ),
        ("eps_max", info.eps_max),
        ("architecture", info.arch),
        ("parameters", f"{info.parameters:,}" if info.parameters else None),
        ("weights", f"{info.file} ({info.size:,} bytes)" if info.file and info.size else info.file),
        ("sha256", info.sha256),
        ("hub", f"{info.hub.repo_id} at {info.hub.revision}" if info.hub else None),
        ("epochs", str(training["epochs"]) if "epochs" in training else None),
        ("licence", info.license),
    ]
    return [(name, value) for name, value in facts if value]


def _classes(dataset: str | None) -> str:
    names = class_names(dataset)
    shown = ", ".join(names[:SHOWN_CLASSES])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > SHOWN_CLASSES else shown


def _metric_row(m: Metric) -> tuple[str, ...]:
    return (
        m.metric,
        f"{_value(m)} {m.unit}",
        m.eps or "-",
        f"{m.n:,} of {m.dataset} {m.split}",
        m.method or "-",
        m.rounding or "-",
    )


def _value(m: Metric) -> str:
    return decimal_down(m.value, 2 if m.unit == "%" else 6)
