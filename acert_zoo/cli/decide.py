"""`acert-zoo decide`: robust, not robust, or undecided in the time given."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acert_zoo._files import check_output_file
from acert_zoo.cli.inputs import data_options, read_inputs, read_model
from acert_zoo.cli.numbers import parse_share, percent
from acert_zoo.cli.terminal import print_facts, print_json, print_table, printable, resumable
from acert_zoo.exact_numbers import duration, parse_eps

if TYPE_CHECKING:
    from acert_zoo.certificates.decide import Decisions


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGES]...", type=click.Path())
@click.option("--model", metavar="NAME", help="A registered name, a folder or .safetensors file, or hf-hub:OWNER/REPO.")
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE", help="An ONNX classifier instead of --model.")
@data_options
@click.option("--labels", metavar="L,L,...|FILE", help="True labels of the image files; else predictions are decided.")
@click.option("--resize", is_flag=True, help="Scale and convert image files that do not fit the model.")
@click.option("--eps", required=True, metavar="EPS", help="The radius, e.g. 2/255.")
@click.option("--budget", type=float, metavar="SECONDS", help="Seconds an image.  [default: 60]")
@click.option("--memory", type=float, metavar="MIB", help="MiB for a batch of cases.  [default: 1024]")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write verdicts; continues a part.")
@click.option("--fail-under", metavar="SHARE", help="Exit with 1 where less is proved robust, e.g. 40% or 0.4.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def decide(**options: Any) -> int:
    """Decide images: robust within --eps (proved), not robust (by an adversarial image), or undecided in --budget.

    IMAGES are image files, or folders of them. With none, and no --data, the bundled test images of the model's data
    set are decided. `acert-zoo verify FILE` checks what --out has written.
    """
    parse_eps(options["eps"])
    share = None if options["fail_under"] is None else parse_share(options["fail_under"])
    out: Path | None = options["out"]
    if out is not None:
        check_output_file(out)

    import torch

    from acert_zoo import decide as decide_images

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    model = read_model(options["model"], options["onnx"])
    named = ("data", "split", "limit", "data_root", "labels", "resize")
    shape = getattr(model, "input_shape", None)
    inputs = read_inputs(getattr(model, "info", None), shape, options["images"], **{key: options[key] for key in named})
    started = time.perf_counter()
    with resumable("deciding", out) as progress:
        result = decide_images(
            model,
            inputs.images,
            inputs.labels,
            eps=options["eps"],
            budget=options["budget"],
            memory=None if options["memory"] is None else options["memory"] * 2**20,
            out=out,
            ids=inputs.ids,
            dataset=inputs.dataset,
            split=inputs.split,
            progress=progress,
        )
    if options["as_json"]:
        print_json(result.to_dict())
    else:
        _print(result, inputs.description, time.perf_counter() - started)
    return 0 if share is None or result.certified_accuracy >= share else 1


def _print(result: Decisions, description: str, seconds: float) -> None:
    n = len(result)
    facts = [("images", f"{n:,} ({description})"), ("eps", result.header.eps)]
    facts += [(status, f"{count:,} ({percent(count, n)})") for status, count in result.counts.items()]
    facts += [("rounding", result.header.rounding), ("time", duration(seconds))]
    print_facts(printable(result.header.model or "a network of no registered name"), facts)
    if n <= 40:
        rows = [
            (printable(line.id), line.status, line.method or "-", f"{line.cases:,}", f"{line.seconds:.1f} s", line.note)
            for line in result.lines
        ]
        print_table(("image", "verdict", "by", "cases", "time", "note"), rows, right=("cases", "time"))
