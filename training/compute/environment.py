"""What a number may depend on beside the program's input: versions, git commit, device, threads, processes."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from acert_zoo._version import __version__
from training.compute import distributed


def versions() -> dict[str, str]:
    """Of this package, Python, torch and NumPy."""
    return {
        "acert-zoo": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """What the result of a run on `device` may depend on beside its recipe."""
    return {
        "versions": versions(),
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


def _commit() -> str | None:
    """The checkout's commit, with "+changes" where tracked files differ from it; None outside a git checkout."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", *arguments],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")
