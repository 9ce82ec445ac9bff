"""`acert-zoo verify-property`: the front end of a verifier: one network, one property, one word."""

from __future__ import annotations

from pathlib import Path

import click

from acert_zoo._files import check_output_file, write_atomically
from acert_zoo.errors import InvalidInputError

EXIT_CODES = {"unsat": 0, "sat": 1, "unknown": 3, "timeout": 3}


@click.command("verify-property")
@click.argument("network", metavar="NET.onnx", type=click.Path(path_type=Path))
@click.argument("property_file", metavar="PROPERTY.vnnlib", type=click.Path(path_type=Path))
@click.option("--timeout", type=float, default=120.0, show_default=True, metavar="SECONDS", help="Time for an answer.")
@click.option("--memory", type=float, default=1024.0, show_default=True, metavar="MIB", help="For a batch of cases.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the answer there, too.")
def verify_property(network: Path, property_file: Path, timeout: float, memory: float, out: Path | None) -> int:
    """Answer unsat (proved), sat (with a counterexample), unknown or timeout; reading the files counts as time.

    PROPERTY.vnnlib is VNN-LIB 1.0 or 2.0, packed by gzip or not. unsat is proved in float64 with outward rounding; the
    counterexample of sat is checked exactly. Exit codes: 0 unsat, 1 sat, 3 unknown or timeout.
    """
    import time

    begun = time.perf_counter()
    if not (timeout > 0 and memory >= 1):
        raise InvalidInputError(f"--timeout must be > 0 and --memory at least 1, got {timeout} and {memory}")
    if out is not None:
        check_output_file(out)
    from acert_zoo.complete.property_verifier import PropertyVerifier
    from acert_zoo.network.onnx.files import load_onnx
    from acert_zoo.network.torch_defaults import STANDARD
    from acert_zoo.network.vnnlib.reader import read_property

    prop = read_property(property_file)
    with STANDARD.applied():
        model = load_onnx(network, classifier=False)
        model.check_property(prop)
        verifier = PropertyVerifier(model.network, model.input_shape, memory * 2**20, model.file_outputs)
        answer = verifier(prop, max(0.01, timeout - (time.perf_counter() - begun)))
    text = answer.status if answer.counterexample is None else f"{answer.status}\n{answer.counterexample}"
    click.echo(text)
    if out is not None:
        write_atomically(out, (text + "\n").encode("ascii"))
    return EXIT_CODES[answer.status]
