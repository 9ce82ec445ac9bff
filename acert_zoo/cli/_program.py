"""Errors to exit codes, in one place: what a user can cause is a message on stderr, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from acert_zoo.cli.threads import wait_passively
from acert_zoo.errors import AcertZooError, RefutedCertificateError

CLAIM_FAILS = 1
BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
CLOSED_PIPE = 141  # 128 + SIGPIPE; not 1, which would say that a claim does not hold


class _ClosedPipe(Exception):
    """Whoever read our output has gone; click would end with exit code 1."""


class Program(click.Group):
    """A group whose commands return their exit code (None: 0) and whose errors end in the module's exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError as error:
            raise _ClosedPipe from error
        except KeyboardInterrupt as error:
            raise click.exceptions.Exit(_interrupted(error)) from error
        except RefutedCertificateError as error:
            click.echo(f"Error: {error}", err=True)
            return CLAIM_FAILS
        except (AcertZooError, OSError) as error:  # OSError: a full disk, a file that may not be read
            raise click.ClickException(str(error)) from error

    def main(self, args: Sequence[str] | None = None, standalone_mode: bool = True, **extra: Any) -> Any:  # type: ignore[override]
        if not standalone_mode:
            return super().main(args, standalone_mode=False, **extra)
        wait_passively()
        # File names may hold anything; printing them must not fail.
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(BAD_INPUT)
        except (KeyboardInterrupt, click.Abort) as error:
            sys.exit(_interrupted(error))
        except _ClosedPipe:
            # Python flushes stdout once more on its way out; give that flush somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(CLOSED_PIPE)
        sys.exit(code if isinstance(code, int) else 0)


def _interrupted(error: BaseException) -> int:
    notes = getattr(error, "__notes__", [])
    click.echo("\nInterrupted." + "".join(f" {note}" for note in notes), err=True)
    return INTERRUPTED
