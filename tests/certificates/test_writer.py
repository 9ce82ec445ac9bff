"""Certificate files that grow while certifying: going on after an interruption, and one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import acert_zoo
from acert_zoo import certify
from acert_zoo.certificates.file import format_file, read_file
from acert_zoo.certificates.results import Certificates
from acert_zoo.errors import CertificateFileError, InvalidInputError
from tests.support.models import small_model

N = 12


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_resume_skips_what_is_there(model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    seen: list[tuple[int, int]] = []
    first = certify(model, images[:5], labels[:5], out=out, batch_size=2, progress=lambda *p: seen.append(p))
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    seen.clear()
    whole = certify(model, images, labels, out=out, batch_size=4, progress=lambda *p: seen.append(p))
    assert seen == [(5, 12), (8, 12), (12, 12)]
    assert torch.equal(whole.radius[:5], first.radius)
    loaded = Certificates.load(out)
    assert loaded.lines() == whole.lines()
    assert loaded.header.n == N
    content = out.read_bytes()
    assert certify(model, images, labels, out=out).lines() == whole.lines()
    assert out.read_bytes() == content


def test_interrupt_keeps_what_is_done(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(model, images, out=out, batch_size=3, progress=stop)
    part = read_file(out, partial=True)
    assert len(part.lines) == 6
    assert part.header.n == N
    whole = certify(model, images, out=out, batch_size=3)
    assert tuple(whole.lines()[:6]) == part.lines
    assert len(Certificates.load(out)) == N


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_line_is_done_again(model: nn.Module, images: Tensor, tmp_path: Path, cut: int) -> None:
    out = tmp_path / "c.jsonl"
    before = certify(model, images, out=out)
    content = out.read_bytes()
    out.write_bytes(content[:-cut])
    again = certify(model, images, out=out)
    assert len(Certificates.load(out)) == N
    assert torch.equal(again.radius, before.radius)


@pytest.mark.parametrize("length", [0, 1, 30, 200])
def test_a_torn_header_is_begun_again(model: nn.Module, images: Tensor, tmp_path: Path, length: int) -> None:
    out = tmp_path / "c.jsonl"
    certify(model, images, out=out)
    out.write_bytes(out.read_bytes()[:length])
    certify(model, images, out=out)
    assert len(Certificates.load(out)) == N


def test_files_that_are_not_ours_are_left_alone(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    for content in (b"my thesis", b"my thesis\n", b"{}\n"):
        out = tmp_path / "precious"
        out.write_bytes(content)
        with pytest.raises(CertificateFileError):
            certify(model, images, out=out)
        assert out.read_bytes() == content


def test_another_run_is_refused(model: nn.Module, images: Tensor, labels: Tensor, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    certify(model, images, labels, out=out)
    content = out.read_bytes()
    with pytest.raises(CertificateFileError, match=r"another run.*weights_sha256"):
        certify(small_model(2), images, labels, out=out)
    with pytest.raises(CertificateFileError, match="rounding"):
        certify(model, images, labels, out=out, rounding="float32")
    with pytest.raises(CertificateFileError, match="certifies"):
        certify(model, images, out=out)
    with pytest.raises(CertificateFileError, match="'0' with other pixels"):
        certify(model, images.flip(0), labels.flip(0), out=out)
    with pytest.raises(CertificateFileError, match="'0' with label"):
        certify(model, images, (labels + 1) % 4, out=out)
    assert out.read_bytes() == content
    lines = content.splitlines(keepends=True)
    out.write_bytes(b"".join([*lines[:4], lines[4].replace(b'"0.', b'"0.1'), *lines[5:]]))
    with pytest.raises(CertificateFileError, match="line 5"):
        certify(model, images, labels, out=out)


def test_unwritable_output_is_found_before_the_work(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    calls: list[int] = []

    def never(done: int, total: int) -> None:
        calls.append(done)

    with pytest.raises(InvalidInputError, match="does not exist"):
        certify(model, images, out=tmp_path / "none" / "c.jsonl", progress=never)
    with pytest.raises(InvalidInputError, match="is a folder"):
        certify(model, images, out=tmp_path, progress=never)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match=r"does not exist|cannot be written"):
        certify(model, images, out=tmp_path / "file" / "c.jsonl", progress=never)
    assert calls == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidInputError, match="cannot be written"):
        certify(model, images, out=tmp_path / "c.jsonl")


def numbers(result: Certificates) -> list[tuple[object, ...]]:
    """Everything that is certified, exactly; times differ between runs."""
    return [(line.id, line.radius, line.margin, line.method, line.rounding) for line in result.lines()]


@pytest.mark.parametrize("kept", [1, 17, 25, 47])
def test_a_run_that_goes_on_ends_with_the_same_bits(model: nn.Module, tmp_path: Path, kept: int) -> None:
    """Batches of 24: large enough for a search to learn from its first images, and broken off at any line."""
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    whole = certify(model, images, batch_size=24)
    assert len(set(whole.radius.tolist())) == 60
    out = tmp_path / "c.jsonl"
    out.write_bytes(format_file(whole.header, whole.lines()[:kept]))
    assert numbers(certify(model, images, batch_size=24, out=out)) == numbers(whole)
    assert numbers(Certificates.load(out, partial=True)) == numbers(whole)


def test_what_was_certified_before_in_the_process_does_not_matter(model: nn.Module) -> None:
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    second = certify(model, images[20:])
    both = certify(model, images, batch_size=20)
    assert both.radius[20:].tolist() == second.radius.tolist()
    assert both.margin[20:].tolist() == second.margin.tolist()


def test_two_runs_with_one_file(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    refused: list[str] = []

    def second(done: int, total: int) -> None:
        def run() -> None:
            with pytest.raises(InvalidInputError, match=r"c.jsonl' is being written by another run") as error:
                certify(model, images, out=out)
            refused.append(str(error.value))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()

    certify(model, images, out=out, batch_size=6, progress=second)
    assert refused
    assert len(Certificates.load(out)) == N, "each image once"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX")
def test_a_killed_run_locks_nobody_out(model: nn.Module, images: Tensor, tmp_path: Path) -> None:
    out = tmp_path / "c.jsonl"
    hold = "import sys, time; from pathlib import Path; from acert_zoo._files import locked\n"
    hold += "with locked(Path(sys.argv[1]), wait=False): print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", hold, str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(acert_zoo.__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(InvalidInputError, match="another run"):
            certify(model, images, out=out)
        process.kill()
    assert len(certify(model, images, out=out)) == N
