"""`acert-zoo evaluate`: a model of one's own on a test set, as a row for the gallery."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from acert_zoo._files import check_output_file, write_atomically
from acert_zoo.cli.inputs import read_inputs
from acert_zoo.cli.terminal import print_facts, progress_bar
from acert_zoo.exact_numbers import down


@click.command()
@click.option("--state-dict", type=click.Path(path_type=Path), metavar="FILE", help="Weights, as .safetensors.")
@click.option("--arch", metavar="ARCH", help="Architecture of --state-dict: cnn7, cnn or resnet.")
@click.option("--arch-args", metavar="JSON", help="Its arguments, e.g. '{\"width\": 32}'; mean and std too.")
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE", help="An ONNX classifier instead.")
@click.option("--model", metavar="NAME", help="A model of the zoo, a folder, or hf-hub:OWNER/REPO instead.")
@click.option("--dataset", required=True, metavar="DATASET", help="Whose test set, e.g. cifar10.")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the data sets. [$ACERT_ZOO_DATA]")
@click.option("--samples", is_flag=True, help="Only the test images that come with the package.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@click.option("--name", metavar="NAME", help="What the gallery calls it.  [default: the file's name]")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the row as JSON.")
def evaluate(
    state_dict: Path | None,
    arch: str | None,
    arch_args: str | None,
    onnx: Path | None,
    model: str | None,
    dataset: str,
    data_root: str | None,
    samples: bool,
    limit: int | None,
    name: str | None,
    out: Path | None,
) -> None:
    """Evaluate a model of your own on a test set, with rounding-sound interval bounds, as the zoo's models were.

    The row that --out writes is what the gallery's page "Compare your own" reads.
    """
    if sum(source is not None for source in (state_dict, onnx, model)) != 1:
        raise click.UsageError("Name one model: --state-dict FILE --arch ARCH, --onnx FILE, or --model NAME.")
    if (state_dict is None) != (arch is None):
        raise click.UsageError("--state-dict and --arch go together.")
    if samples and data_root:
        raise click.UsageError("--samples are in the package; --data-root is for the full test set.")
    if out is not None:
        check_output_file(out)

    from acert_zoo import certify, sample_data
    from acert_zoo.cli.inputs import read_model
    from acert_zoo.data.registration import dataset_info
    from acert_zoo.gallery.own_row import model_from_state_dict, own_row, parse_arch_arguments

    info = dataset_info(dataset, data_root)
    if state_dict is not None:
        network = model_from_state_dict(state_dict, str(arch), parse_arch_arguments(arch_args), info)
    else:
        network = read_model(model, onnx)
    labels: Any
    if samples:
        images, labels = sample_data(dataset, limit)
        split = "samples"
    else:
        inputs = read_inputs(None, info.input_shape, (), data=dataset, split="test", limit=limit, data_root=data_root)
        images, labels, split = inputs.images, inputs.labels, "test"
    with progress_bar("certifying") as progress:
        result = certify(network, images, labels, dataset=dataset, split=split, progress=progress)
    source = state_dict or onnx
    row = own_row(
        name or (source.stem if source else str(model)), result, info, sum(p.numel() for p in network.parameters())
    )
    facts = [
        ("images", f"{row['n']:,} {dataset} test images"),
        ("natural accuracy", f"{down(row['accuracy'], 2)} %"),
        *((f"certified at {eps}", f"{down(value, 2)} %") for eps, value in row["certified_accuracy"].items()),
        ("ACR", f"{down(row['acr'], 2)} % of {info.eps_max}"),
        ("rounding", row["rounding"]),
    ]
    print_facts(row["name"], facts)
    if out is not None:
        write_atomically(out, (json.dumps(row, allow_nan=False) + "\n").encode())
        click.echo(f"wrote {out}")
