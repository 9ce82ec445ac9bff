"""The command line: one function per command, no logic of its own. Exit codes: 0 done, 1 the claim does not hold, 2 bad
usage or input, 130 interrupted, 141 the reader of the output went away. Torch is imported by the commands that need it.
"""

from __future__ import annotations

import click

from acert_zoo._version import __version__
from acert_zoo.cli._program import Program
from acert_zoo.cli.certify import certify
from acert_zoo.cli.decide import decide
from acert_zoo.cli.evaluate import evaluate
from acert_zoo.cli.export import export
from acert_zoo.cli.merge import merge
from acert_zoo.cli.models import list_, show
from acert_zoo.cli.site import site
from acert_zoo.cli.verify import verify
from acert_zoo.cli.verify_property import verify_property

__all__ = ["main"]


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="acert-zoo")
def main() -> None:
    """Image classifiers with certified l-inf robustness: list them, certify and decide images, verify the proofs."""


for command in (list_, show, certify, decide, verify, verify_property, merge, export, evaluate, site):
    main.add_command(command)
