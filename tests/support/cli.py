"""A scratch zoo with one small CIFAR-10 network, and the command line run in this process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from acert_zoo.cli import main
from acert_zoo.network import architectures
from acert_zoo.zoo import registry
from acert_zoo.zoo.model import AcertModel
from acert_zoo.zoo.model_info import ModelInfo

posix = pytest.mark.skipif(os.name != "posix", reason="terminals and signals are other ones elsewhere")
ROOT = Path(__file__).resolve().parents[2]
KWARGS = {
    "input_shape": [3, 32, 32],
    "num_classes": 10,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "convs": [[4, 4], [4, 4]],
    "hidden": 8,
}
METRICS = [
    {"metric": "accuracy", "value": 54.3, "unit": "%", "n": 1000, "dataset": "cifar10", "split": "test"},
    {"metric": "acr_percent", "value": 29.57, "unit": "%", "n": 1000, "dataset": "cifar10", "split": "test"}
    | {"eps": "8.8/255", "method": "ibp", "rounding": "real-sound"},
    {"metric": "certified_accuracy", "value": 41.1, "unit": "%", "n": 1000, "dataset": "cifar10", "split": "test"}
    | {"eps": "2/255", "method": "ibp", "rounding": "real-sound"},
]


def cifar_model(name: str = "tiny_kappa025") -> AcertModel:
    """A network of about 600 parameters on 3x32x32 images, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = architectures.build("cnn", **KWARGS)
    info = ModelInfo(
        name=name,
        arch="cnn",
        arch_kwargs=KWARGS,
        dataset="cifar10",
        method="acert",
        kappa=0.25,
        eps_max="8.8/255",
        license="Apache-2.0",
    )
    return AcertModel(classifier, info).eval()


def make_zoo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Registers the small network, in a registry of its own below `folder`; returns its name."""
    model = cifar_model()
    saved = folder / "saved"
    model.save_pretrained(saved)
    record = json.loads((saved / "config.json").read_text())
    del record["format"], record["schema_version"]
    (folder / "checkpoints").mkdir()
    (saved / "model.safetensors").rename(folder / "checkpoints" / "tiny.safetensors")
    record |= {"file": "checkpoints/tiny.safetensors", "metrics": METRICS, "training": {"epochs": 3}}
    (folder / "zoo.json").write_text(json.dumps({"schema_version": 1, "models": [record]}))
    monkeypatch.setattr(registry, "REGISTRY_PATH", folder / "zoo.json")
    monkeypatch.setattr(registry, "PACKAGE", folder)
    return str(record["name"])


def make_data(root: Path, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A CIFAR-10 test split of `n` random images in the layout that --data-root takes."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 10, n)
    (root / "cifar10").mkdir(parents=True)
    np.save(root / "cifar10" / "test_images.npy", images)
    np.save(root / "cifar10" / "test_labels.npy", labels)
    return images, labels


def run(*arguments: str | Path) -> Result:
    """`acert-zoo ARGUMENTS` in this process; an error that is not a message for the user fails the test."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def refused(message: str, *arguments: str | Path) -> None:
    """The command ends with exit code 2, says `message` on stderr, and prints nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""


def command(*arguments: str | Path) -> list[str]:
    """The command line as a process of its own, whatever is installed."""
    return [sys.executable, "-c", "from acert_zoo.cli import main; main()", *map(str, arguments)]


def environment() -> dict[str, str]:
    """For such processes: this tree's package, one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def interrupted(arguments: Sequence[str | Path], due: Callable[[], bool]) -> tuple[int, str]:
    """The command as a process of its own, sent Ctrl-C once it is `due`: (exit code, stderr). Its stdout is empty."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # a suite run in the background ignores SIGINT, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not due():
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    output, messages = process.communicate()
    assert output == ""
    return process.returncode, messages
