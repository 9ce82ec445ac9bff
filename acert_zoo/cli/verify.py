"""`acert-zoo verify`: proves every line of a certificate file again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acert_zoo.cli.inputs import SPLITS, dataset_file_option, onnx_options, read_model
from acert_zoo.cli.terminal import print_facts, print_json, printable, progress_bar
from acert_zoo.cli.threads import default_threads
from acert_zoo.cli.verify_many import verify_many
from acert_zoo.data.registration import dataset_names
from acert_zoo.exact_numbers import duration

if TYPE_CHECKING:
    from torch import Tensor, nn

    from acert_zoo.certificates.verdict_check import VerdictReport
    from acert_zoo.certificates.verify_report import VerifyReport


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILES...", type=click.Path(path_type=Path))
@click.option("--model", metavar="NAME", help="The model, where the file names no registered one.")
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE", help="An ONNX classifier instead of --model.")
@onnx_options
@click.option("--images", type=click.Path(), metavar="FOLDER", help="Where the image files lie now.")
@click.option("--resize", is_flag=True, help="Image files were certified with --resize.")
@click.option("--data", metavar="DATASET", help="The data set, where the file names none.")
@click.option("--split", type=click.Choice(SPLITS), help="Split of --data.  [default: test]")
@click.option("--data-root", type=click.Path(file_okay=False), help="Folder of the data sets. [$ACERT_ZOO_DATA]")
@click.option("--download", is_flag=True, help="Fetch the model that FILE names from the Hub where it is not here.")
@dataset_file_option
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Threads.")
@click.option("--engine", type=click.Choice(("local", "ray")), help="Of several files; ray: in parallel.")
@click.option("--ray-address", metavar="HOST:PORT", help="A Ray cluster.  [default: this machine]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Files that Ray verifies at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def verify(
    files: tuple[Path, ...],
    jobs: int,
    engine: str | None,
    ray_address: str | None,
    workers: int | None,
    as_json: bool,
    **named: Any,
) -> int:
    """Prove every line of FILES (certificates, or verdicts of `decide`) again, from weights and pixels alone.

    FILES may be folders of certificate files. Model and images are those that a file names; nothing is fetched over
    the network without --download. Exits with 1, naming the lines, where anything cannot be proved.
    """
    given = Named(**named)
    if given.images and given.data:
        raise click.UsageError("Name --images or --data, not both.")
    if given.split and not given.data:
        raise click.UsageError("--split is for --data; the split that FILE names is used.")
    if engine != "ray" and (ray_address or workers):
        raise click.UsageError("--ray-address and --workers are for --engine ray.")
    if len(files) > 1 or files[0].is_dir() or engine is not None:
        return verify_many(
            files,
            as_json,
            engine=engine or "local",
            workers=workers,
            ray_address=ray_address,
            threads=jobs if engine == "ray" else default_threads(),
            **given.options(files),
        )
    from acert_zoo.certificates.verdict_file import is_verdict_file

    (file,) = files
    return _verdicts(file, given, as_json) if is_verdict_file(file) else _certificates(file, given, jobs, as_json)


@dataclass(frozen=True)
class Named:
    """What the command line says of the model and the images; what it does not say, a file names."""

    model: str | None
    onnx: Path | None
    mean: str | None
    std: str | None
    images: str | None
    resize: bool
    data: str | None
    split: str | None
    data_root: str | None
    download: bool

    def options(self, files: Sequence[Path]) -> dict[str, Any]:
        """The arguments of `verify_file`, `verify_files` and `verify_verdicts` that say so."""
        model = None
        if self.model is not None or self.onnx is not None:
            model = read_model(self.model, self.onnx, self.mean, self.std)
        return {
            "model": model,
            "images": self.images if self.data is None else self._by_name(self.data, files, model),
            "data_root": self.data_root,
            "resize": self.resize,
            "download": self.download,
        }

    def _by_name(self, data: str, files: Sequence[Path], model: nn.Module | None) -> Mapping[str, Tensor]:
        """The images of --data under their ids, read when they are asked for."""
        from acert_zoo.certificates.file import read_file
        from acert_zoo.certificates.merge import certificate_files
        from acert_zoo.certificates.verdict_file import is_verdict_file, read_verdicts
        from acert_zoo.certificates.verify import named_model
        from acert_zoo.data.open_source import open_source
        from acert_zoo.data.pixel_source import ImagesByName

        shape = None
        if data not in dataset_names() and Path(data).exists():
            if model is None:
                first = certificate_files(files)[0]
                file = (
                    read_verdicts(first, partial=True)
                    if is_verdict_file(first)
                    else read_file(first, keep_altered=True)
                )
                model = named_model(file.header, self.download)
            shape = getattr(model, "input_shape", None)
        source = open_source(data, shape, split=self.split, data_root=self.data_root, resize=self.resize)
        return ImagesByName(source)


def _certificates(file: Path, given: Named, jobs: int, as_json: bool) -> int:
    """The command for one file of certificates."""
    from acert_zoo.certificates.file import read_file

    lines = len(read_file(file, keep_altered=True).lines)  # refuses what is no such file before torch is imported
    import torch

    from acert_zoo.certificates.verify import verify_file

    options = given.options([file])
    torch.set_num_threads(default_threads())
    with progress_bar("verifying", lines) as progress:
        report = verify_file(file, jobs=jobs, progress=progress, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    return 0 if report.ok else 1


def _verdicts(file: Path, given: Named, as_json: bool) -> int:
    """The command for a file that `acert-zoo decide` has written."""
    from acert_zoo.certificates.verdict_check import verify_verdicts

    options = given.options([file])
    with progress_bar("verifying") as progress:
        report = verify_verdicts(file, progress=progress, **options)
    if as_json:
        print_json(report.to_dict())
    else:
        _print_verdicts(report)
    return 0 if report.ok else 1


def _print_verdicts(report: VerdictReport) -> None:
    facts = [("model", printable(report.header.model or "a network of no registered name"))]
    facts += [("eps", printable(report.header.eps))]
    facts += [(status, f"{count:,}") for status, count in report.held.items()]
    facts += [("failed", f"{len(report.failed):,}"), ("time", duration(report.seconds))]
    print_facts(f"{printable(report.path)}: {'every verdict holds' if report.ok else 'NOT PROVED'}", facts)
    for failure in report.failures:
        click.echo(f"file: {printable(failure)}")
    for number, name, reason in report.failed:
        click.echo(f"line {number} ({printable(name)}): failed: {printable(reason)}")


def _print(report: VerifyReport) -> None:
    header, counts = report.header, report.counts
    name = "a network of no registered name"
    if header.model is not None:
        name = header.model if header.model_version is None else f"{header.model}.v{header.model_version}"
    facts = [("model", name)]
    if header.dataset is not None:
        facts.append(("data set", f"{header.dataset} {header.split or ''}".strip()))
    facts += [(status, f"{count:,}") for status, count in counts.items() if count or status == "proved"]
    facts += [("rounding", header.rounding), ("time", duration(report.seconds))]
    print_facts(f"{printable(report.path)}: {'every line proved' if report.ok else 'NOT PROVED'}", facts)
    for failure in report.failures:
        click.echo(f"file: {printable(failure)}")
    for line in report.bad_lines:
        click.echo(f"line {line.number} ({printable(line.id)}): {line.status}: {printable('; '.join(line.reasons))}")
