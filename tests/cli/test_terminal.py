"""On a terminal and in a pipe, interrupted and continued: the command line as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from acert_zoo import Certificates
from acert_zoo.cli import terminal
from tests.support.cli import cifar_model, command, environment, interrupted, make_data, posix, run


def test_columns_are_aligned_and_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("name", "n"), [("a[red]", "1"), ("b", "200")], right=("n",))
    assert capsys.readouterr().out == "name      n\na[red]    1\nb       200\n"


def test_a_name_cannot_steer_the_terminal() -> None:
    assert terminal.printable("cat.png") == "cat.png"
    assert terminal.printable("\x1b[31mred\n") == "\\x1b[31mred\\n"


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": [float("-inf"), 1.5], "b": (float("nan"),)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": [None]}


@posix
def test_a_bar_on_the_terminal_only_and_one_json_document_in_the_pipe(tmp_path: Path) -> None:
    import pty

    cifar_model().save_pretrained(tmp_path)
    arguments = command("certify", "--model", tmp_path, "--limit", "40", "--batch-size", "10", "--json")
    master, slave = pty.openpty()
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=slave, text=True, env=environment(), check=False)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.returncode == 0, shown
    assert "certifying" in shown
    assert len(json.loads(done.stdout)["images"]) == 40
    quiet = run("certify", "--model", tmp_path, "--limit", "40", "--batch-size", "10", "--json")
    assert quiet.stderr == ""
    there, here = ([i["radius"] for i in json.loads(text)["images"]] for text in (done.stdout, quiet.stdout))
    assert there == pytest.approx(here, rel=1e-5, abs=0)  # another process may sum in another order


@posix
def test_interrupted_it_keeps_what_it_has_and_the_same_command_continues(tmp_path: Path) -> None:
    n = 1000
    make_data(tmp_path / "data", n)
    cifar_model().save_pretrained(tmp_path / "model")
    out = tmp_path / "out.jsonl"
    data = ("--data", "cifar10", "--data-root", tmp_path / "data")
    arguments = ("certify", "--model", tmp_path / "model", *data, "--batch-size", "2", "--out", out)
    code, messages = interrupted(arguments, lambda: out.exists() and out.read_bytes().count(b"\n") >= 10)
    assert code == 130, messages
    assert "Traceback" not in messages
    assert str(out) in messages
    part = Certificates.load(out, partial=True)
    assert 8 <= len(part) < n
    kept = out.read_bytes()[: out.read_bytes().rindex(b"\n") + 1].splitlines()[1:]
    again = run(*arguments[:-3], "100", "--out", out)
    assert again.exit_code == 0, again.stderr
    assert out.read_bytes().splitlines()[1 : len(kept) + 1] == kept
    assert len(Certificates.load(out)) == n
