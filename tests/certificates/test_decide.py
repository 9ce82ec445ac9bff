"""`decide`: verdicts on small networks, their file, and what the check makes of files that were tampered with.

Also tested here: certificates/verdict_file.py, certificates/verdict_check.py, complete/decider.py,
complete/verdict.py, complete/refutation.py, complete/question.py.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

import acert_zoo
from acert_zoo.certificates.decide import Decisions, decide
from acert_zoo.certificates.verdict_check import verify_verdicts
from acert_zoo.certificates.verdict_file import data_path, is_verdict_file, read_verdicts
from acert_zoo.errors import CertificateFileError, InvalidInputError, UnsoundSettingError
from acert_zoo.zoo.model import AcertModel
from tests.support.models import SHAPE, small_model

EPS = "1/14"
N = 2


def images_of(n: int = N) -> Tensor:
    """The first is attacked within EPS, the second takes branch and bound."""
    return torch.rand(8, *SHAPE, generator=torch.Generator().manual_seed(0))[[0, 3]][:n]


@pytest.fixture(scope="module")
def model() -> AcertModel:
    return small_model(1)


@pytest.fixture(scope="module")
def decided(model: AcertModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Decisions]:
    path = tmp_path_factory.mktemp("decide") / "verdicts.jsonl"
    return path, decide(model, images_of(), None, eps=EPS, budget=120, out=path)


def rewrite(path: Path, target: Path, number: int, **changes: object) -> Path:
    """A copy whose line `number` has other values and a checksum that fits them."""
    lines = path.read_text().splitlines()
    values = json.loads(lines[number]) | changes
    del values["crc32"]
    text = json.dumps(values)[:-1]
    lines[number] = f'{text}, "crc32": "{zlib.crc32(text.encode()):08x}"}}'
    target.write_text("\n".join(lines) + "\n")
    return target


def test_every_kind_of_verdict_is_there_and_holds(model: AcertModel, decided: tuple[Path, Decisions]) -> None:
    path, result = decided
    assert result.status == ["not robust", "robust"]
    assert result.lines[1].method == "branch-and-bound"
    assert result.lines[1].cases > 3
    assert sum(result.counts.values()) == N
    assert result.certified_accuracy <= result.attacked_accuracy
    assert is_verdict_file(path)
    report = verify_verdicts(path, model=model, images=images_of())
    assert report.ok
    assert report.held == result.counts


def test_verdicts_agree_with_radii(model: AcertModel, decided: tuple[Path, Decisions]) -> None:
    """What interval bounds certify is robust; attacks find nothing nearer than eps where it is."""
    _, result = decided
    images = images_of()
    certified = acert_zoo.certify(model, images).certified(EPS).tolist()
    robust = torch.tensor([s == "robust" for s in result.status])
    assert all(status == "robust" for status, c in zip(result.status, certified, strict=True) if c)
    labels = torch.tensor([line.label for line in result.lines])
    attacked = acert_zoo.attack(model, images[robust], labels[robust], EPS, steps=60, restarts=6, seed=7)
    assert not bool(attacked.success.any())


def test_a_broken_off_run_goes_on(model: AcertModel, decided: tuple[Path, Decisions], tmp_path: Path) -> None:
    path, result = decided
    part = tmp_path / "part.jsonl"
    content = path.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(content[:2]) + content[2][:30])  # one verdict and a torn one
    if data_path(path).exists():
        data_path(part).write_bytes(data_path(path).read_bytes())
    calls: list[int] = []
    again = decide(model, images_of(), None, eps=EPS, budget=120, out=part, progress=lambda done, _: calls.append(done))
    assert calls == [2]
    assert again.status == result.status
    assert verify_verdicts(part, model=model, images=images_of()).ok


def test_an_interrupt_keeps_what_is_decided(model: AcertModel, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    path = tmp_path / "v.jsonl"
    with pytest.raises(KeyboardInterrupt):
        decide(model, images_of(), None, eps=EPS, budget=120, out=path, progress=stop)
    assert len(read_verdicts(path, partial=True).lines) == 1
    with pytest.raises(CertificateFileError, match="continues it"):
        read_verdicts(path)


def test_a_file_of_another_radius_is_not_continued(model: AcertModel, decided: tuple[Path, Decisions]) -> None:
    with pytest.raises(CertificateFileError, match="eps"):
        decide(model, images_of(), None, eps="1/50", out=decided[0])


class TestTampering:
    """The check says no to verdicts that are not backed by what the file holds."""

    def first(self, result: Decisions, status: str) -> int:
        return next(i for i, line in enumerate(result.lines) if line.status == status and line.method != "ibp")

    def failed(self, model: AcertModel, path: Path) -> str:
        report = verify_verdicts(path, model=model, images=images_of())
        assert not report.ok
        assert len(report.failed) == 1
        return report.failed[0][2]

    def test_not_robust_cannot_be_called_robust(
        self, model: AcertModel, decided: tuple[Path, Decisions], tmp_path: Path
    ) -> None:
        path, result = decided
        i = self.first(result, "not robust")
        for method in ("ibp", "branch-and-bound"):
            bad = rewrite(path, tmp_path / "bad", i + 1, status="robust", method=method, bound=1.0)
            assert self.failed(model, bad)

    def test_a_proof_belongs_to_one_image(
        self, model: AcertModel, decided: tuple[Path, Decisions], tmp_path: Path
    ) -> None:
        path, result = decided
        good, bad = self.first(result, "robust"), self.first(result, "not robust")
        data = read_verdicts(path).lines[good].data
        moved = rewrite(path, tmp_path / "bad", bad + 1, status="robust", method="crown", bound=0.1, data=data)
        assert "not proved" in self.failed(model, moved) or "proof" in self.failed(model, moved)

    def test_the_image_itself_does_not_refute(
        self, model: AcertModel, decided: tuple[Path, Decisions], tmp_path: Path
    ) -> None:
        import base64

        path, result = decided
        i = self.first(result, "robust")
        data = {"base64": base64.b64encode(images_of()[i].numpy().tobytes()).decode()}
        bad = rewrite(path, tmp_path / "bad", i + 1, status="not robust", method="pgd", bound=None, data=data)
        assert "does not refute" in self.failed(model, bad)

    def test_a_bound_that_was_raised(self, model: AcertModel, decided: tuple[Path, Decisions], tmp_path: Path) -> None:
        path, result = decided
        i = self.first(result, "robust")
        bad = rewrite(path, tmp_path / "bad", i + 1, bound=result.lines[i].bound + 0.5)
        if data_path(path).exists():
            data_path(bad).write_bytes(data_path(path).read_bytes())
        assert "the bound proved is" in self.failed(model, bad)


def test_bad_arguments_are_named(model: AcertModel) -> None:
    with pytest.raises(InvalidInputError, match="budget"):
        decide(model, images_of(1), None, eps=EPS, budget=0)
    with pytest.raises(InvalidInputError, match="eps"):
        decide(model, images_of(1), None, eps="-1")
    with pytest.raises(UnsoundSettingError):
        decide(small_model(1).train(), images_of(1), None, eps=EPS)


@pytest.mark.parametrize(("eps", "method"), [("1/200", "ibp"), ("1/100", "crown-ibp"), ("1/60", "crown")])
def test_robust_is_proved_again_by_verify(model: AcertModel, tmp_path: Path, eps: str, method: str) -> None:
    """Each cheap kind of proof; branch and bound is in `decided`."""
    path, image = tmp_path / "v.jsonl", images_of()[1:]
    result = decide(model, image, None, eps=eps, budget=60, out=path)
    assert [line.method for line in result.lines] == [method]
    report = verify_verdicts(path, model=model, images=image)
    assert report.ok
    assert report.held["robust"] == 1


def test_the_budget_is_kept(model: AcertModel) -> None:
    """An image that takes longer than its time is given up within 20 % of it, and the line says why."""
    (line,) = decide(model, images_of()[1:], None, eps="1/10", budget=2.0).lines
    assert line.status == "undecided"
    assert "time is over" in line.note
    assert line.seconds <= 1.2 * 2.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_verdict_file(tmp_path / "pipe")
    with pytest.raises(CertificateFileError, match="not a plain file"):
        read_verdicts(tmp_path / "pipe")
