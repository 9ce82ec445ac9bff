"""`acert-zoo export`: a model for other runtimes (ONNX) and its properties for other verifiers (VNN-LIB)."""

from __future__ import annotations

from pathlib import Path

import click

from acert_zoo._files import check_output_file
from acert_zoo.cli.inputs import data_options, read_inputs
from acert_zoo.errors import InvalidInputError
from acert_zoo.exact_numbers import parse_pixel_eps


@click.command()
@click.argument("name")
@click.option("--onnx", type=click.Path(path_type=Path), metavar="FILE", help="Write the network as ONNX.")
@click.option(
    "--onnx-bounds", type=click.Path(path_type=Path), metavar="FILE", help="Write the network with its interval bounds."
)
@click.option("--vnnlib", type=click.Path(path_type=Path), metavar="FOLDER", help="Write VNN-LIB properties.")
@click.option("--eps", metavar="EPS", help="Radius of the properties, e.g. 2/255.")
@click.option("--force", is_flag=True, help="Replace files of an earlier export.")
@data_options
def export(
    name: str,
    onnx: Path | None,
    onnx_bounds: Path | None,
    vnnlib: Path | None,
    eps: str | None,
    force: bool,
    data: str | None,
    split: str | None,
    limit: int | None,
    data_root: str | None,
) -> None:
    """Export the model NAME.

    --onnx writes the network with its normalisation. --onnx-bounds writes the certifier itself, in float32: pixels and
    eps in, logits and lower bounds of the margins out; an answer is certified where robust_margin > 0. --vnnlib writes
    one property for each image ("the label holds within --eps") and instances.csv, as verifier competitions lay them
    out; its images are the bundled ones of the model's data set unless --data names others.
    """
    if onnx is None and onnx_bounds is None and vnnlib is None:
        raise click.UsageError("Name what to write: --onnx FILE, --onnx-bounds FILE, --vnnlib FOLDER, or several.")
    if vnnlib is not None and eps is None:
        raise click.UsageError("--vnnlib needs --eps.")
    if eps is not None:
        parse_pixel_eps(eps)
    for file in (onnx, onnx_bounds):
        if file is not None:
            check_output_file(file)
            if file.exists() and not force:
                raise InvalidInputError(f"{str(file)!r} exists; --force replaces it")
    if vnnlib is not None and vnnlib.exists() and not vnnlib.is_dir():
        raise InvalidInputError(f"{str(vnnlib)!r} is not a folder")

    from acert_zoo import load_model

    model = load_model(name)
    if onnx is not None:
        from acert_zoo.network.onnx.files import export_onnx

        export_onnx(model, onnx, overwrite=force)
        click.echo(f"wrote {onnx}")
    if onnx_bounds is not None:
        from acert_zoo.bounds.onnx_bounds import export_onnx_bounds

        export_onnx_bounds(model, onnx_bounds)
        click.echo(f"wrote {onnx_bounds}")
    if vnnlib is not None:
        from acert_zoo.network.vnnlib.writer import export_vnnlib

        inputs = read_inputs(
            model.info, model.input_shape, (), data=data, split=split, limit=limit, data_root=data_root
        )
        files = export_vnnlib(model, inputs.images, inputs.labels, eps, vnnlib, overwrite=force)
        left_out = len(inputs.images) - len(files)
        note = f" ({left_out:,} images that the model does not classify as labelled left out)" if left_out else ""
        click.echo(f"wrote {len(files):,} properties to {vnnlib}{note}")
