"""Exit codes: 2 for usage and bad input, 1 for a claim that does not hold, 130 interrupted, 141 nobody reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from acert_zoo.cli._program import Program
from acert_zoo.errors import InvalidInputError, RefutedCertificateError, WeightsError
from tests.support.cli import command, environment, run


def program(body: object) -> click.Group:
    """A program whose one command `go` raises `body`, or returns it."""

    @click.group(cls=Program)
    def group() -> None: ...

    @group.command()
    def go() -> object:
        if isinstance(body, BaseException):
            raise body
        return body

    return group


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (None, 0, ""),
        (0, 0, ""),
        (1, 1, ""),
        (InvalidInputError("eps 'abc' is not a number"), 2, "Error: eps 'abc' is not a number\n"),
        (WeightsError("altered"), 2, "Error: altered\n"),
        (OSError(28, "No space left on device", "x.jsonl"), 2, "No space left on device: 'x.jsonl'"),
        (RefutedCertificateError("image 3"), 1, "Error: image 3\n"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.UsageError("name one"), 2, "name one"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else None,
)
def test_what_a_command_ends_with(body: object, code: int, message: str) -> None:
    result = CliRunner().invoke(program(body), ["go"])
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""


def test_an_error_of_our_own_making_is_not_hidden() -> None:
    result = CliRunner().invoke(program(ZeroDivisionError("a bug")), ["go"])
    assert isinstance(result.exception, ZeroDivisionError)


def test_unknown_commands_and_options_are_bad_usage() -> None:
    assert run("certfy").exit_code == 2
    assert run("list", "--nonsense").exit_code == 2
    assert run("certify").exit_code == 2


def test_version_and_help_are_fine() -> None:
    assert run("--version").exit_code == 0
    assert "Exits with 1" in " ".join(run("verify", "--help").stdout.split())


@pytest.mark.skipif(os.name != "posix", reason="pipes end otherwise elsewhere")
def test_a_reader_that_goes_away_is_no_error_message(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        command("certify", "--help"), stdout=writer, stderr=subprocess.PIPE, text=True, env=environment()
    )
    os.close(writer)
    _, messages = process.communicate()
    assert (process.returncode, messages) == (141, "")
