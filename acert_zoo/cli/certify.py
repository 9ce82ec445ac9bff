"""`acert-zoo certify`: certified radii of images."""

from __future__ import annotations

import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acert_zoo._files import check_output_file, read_text
from acert_zoo.certificates.shards import Shard
from acert_zoo.cli.inputs import data_options, onnx_options, read_inputs, read_model
from acert_zoo.cli.numbers import parse_share
from acert_zoo.cli.shards import certify_in_shards
from acert_zoo.cli.terminal import print_json, resumable
from acert_zoo.cli.threads import default_threads
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_pixel_eps
from acert_zoo.rounding import SELECTABLE_LEVELS, BoundMethod, RoundingLevel

if TYPE_CHECKING:
    from torch import nn

    from acert_zoo.attacks.attack import AttackReport
    from acert_zoo.certificates.results import Certificates
    from acert_zoo.cli.input_images import Inputs

METHODS = [method.value for method in BoundMethod]
ENGINES = ("local", "ray")
LEVELS = [level.value for level in SELECTABLE_LEVELS]


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGES]...", type=click.Path())
@click.option("--model", metavar="NAME", help="A registered name, a folder or .safetensors file, or hf-hub:OWNER/REPO.")
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE", help="An ONNX classifier instead of --model.")
@onnx_options
@click.option("--classes", metavar="A,B,...|FILE", help="With --onnx: names of the classes, one a line in a file.")
@data_options
@click.option(
    "--labels",
    metavar="L,L,...|FILE",
    help="True labels of the image files; else folders named like classes give them, or predictions are certified.",
)
@click.option(
    "--resize",
    is_flag=True,
    help="Scale image files to the model's size, which changes their aspect ratio, and convert colours.",
)
@click.option(
    "--skip-unreadable", is_flag=True, help="Leave out image files that cannot be used; name them at the end."
)
@click.option("--eps", multiple=True, metavar="EPS", help="Report the certified share at this radius, e.g. 2/255.")
@click.option("--fail-under", metavar="SHARE", help="Exit with 1 where less is certified at --eps, e.g. 40% or 0.4.")
@click.option(
    "--method", type=click.Choice(METHODS), default=BoundMethod.IBP.value, show_default=True, help="Bounds to use."
)
@click.option(
    "--rounding",
    type=click.Choice(LEVELS),
    default=RoundingLevel.REAL_SOUND.value,
    show_default=True,
    help="What is proved.",
)
@click.option("--attack", is_flag=True, help="Also attack each image: an upper bound on its true radius.")
@click.option("--budget", type=float, metavar="SECONDS", help="Seconds an image that slow methods may take.")
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Images at a time.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: one a core]")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Of the search, and of the proofs where it may: cpu, cuda or cuda:N.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write certificates; continues a part.")
@click.option(
    "--shard", metavar="K/N", help="Only part K of N, of whole batches: merged, the parts are what one run gives."
)
@click.option(
    "--engine", type=click.Choice(ENGINES), help="Certify in shards, into the folder of --out; ray: in parallel."
)
@click.option("--shard-size", type=click.IntRange(min=1), metavar="N", help="Images of a file of --engine.")
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster.  [default: this machine]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Shards that Ray runs at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def certify(**options: Any) -> int:
    """Certify images: how far every pixel may move before the model could change its mind.

    IMAGES are PNG, JPEG, WebP, BMP, TIFF or GIF files, or folders, which are searched to any depth. Folders named like
    the classes of the model's data set (root/dog/1.png) label their images. With no IMAGES and no --data, the bundled
    test images of the model's data set are certified.
    """
    eps_values = [(text, parse_pixel_eps(text)) for text in options["eps"]]
    share = _fail_under(options["fail_under"], eps_values)
    out: Path | None = options["out"]
    engine: str | None = options["engine"]
    if engine != "ray" and (options["ray_address"] or options["workers"]):
        raise click.UsageError("--ray-address and --workers are for --engine ray.")
    if engine is None and options["shard_size"]:
        raise click.UsageError("--shard-size is for --engine.")
    if out is not None and engine is None:
        check_output_file(out)
    shard = None if options["shard"] is None else Shard.parse(options["shard"])
    if shard is not None and options["skip_unreadable"]:
        raise click.UsageError("--shard counts batches of all images: it does not go with --skip-unreadable.")

    import torch

    from acert_zoo import certify as certify_images
    from acert_zoo.certificates.certify import images_at_a_time
    from acert_zoo.cli.report import Claim, Report

    torch.set_num_threads(options["threads"] or default_threads())
    _say_where_proofs_run(options["device"])
    model = read_model(options["model"], options["onnx"], options["mean"], options["std"])
    if engine is not None:
        return certify_in_shards(model, options, eps_values, share)
    classes = _class_names(options["classes"], options["onnx"], model)
    info = getattr(model, "info", None)
    named = ("data", "split", "limit", "data_root", "labels", "resize", "skip_unreadable")
    shape = getattr(model, "input_shape", None)
    size = images_at_a_time(options["batch_size"], options["method"])
    part = None if shard is None else partial(shard.rows, batch_size=size)
    inputs = read_inputs(info, shape, options["images"], part=part, **{key: options[key] for key in named})
    settings = {key: options[key] for key in ("method", "rounding", "batch_size", "budget", "out", "device")}
    started = time.perf_counter()
    with resumable("certifying", out, len(inputs.images)) as progress:
        result = certify_images(
            model,
            inputs.images,
            inputs.labels,
            ids=inputs.ids,
            dataset=inputs.dataset,
            split=inputs.split,
            progress=progress,
            **settings,
        )
    seconds = time.perf_counter() - started
    attacked = _attack(model, inputs, result) if options["attack"] else None
    report = Report(
        result, inputs, info, [Claim(text, eps, share) for text, eps in eps_values], seconds, attacked, classes
    )
    if options["as_json"]:
        print_json(report.document())
    else:
        report.print()
    return 0 if all(claim.holds(result) for claim in report.claims) else 1


def _say_where_proofs_run(device: str) -> None:
    from acert_zoo.bounds.proof_device import refused
    from acert_zoo.bounds.search_device import search_device

    reason = refused(search_device(device))
    if reason is not None:
        click.echo(f"Proofs run on the CPU: {reason}", err=True)


def _attack(model: nn.Module, inputs: Inputs, result: Certificates) -> AttackReport:
    from acert_zoo.attacks.attack import attack_certificates

    return attack_certificates(model, inputs.images, result)


def _fail_under(text: str | None, eps_values: list[tuple[str, Fraction]]) -> Fraction | None:
    if text is None:
        return None
    if not eps_values:
        raise InvalidInputError("--fail-under needs --eps: the radius at which that share must be certified")
    return parse_share(text)


def _class_names(text: str | None, onnx: Path | None, model: Any) -> tuple[str, ...]:
    """The names of --classes, of which there must be as many as the model has classes."""
    if text is None:
        return ()
    if onnx is None:
        raise click.UsageError("--classes is for --onnx; models of the zoo know their classes.")
    names = read_text(text).splitlines() if Path(text).is_file() else text.split(",")
    names = [name.strip() for name in names if name.strip()]
    number = model.network.num_classes
    if len(names) != number:
        raise InvalidInputError(f"--classes gives {len(names)} names; the model has {number} classes")
    return tuple(names)
