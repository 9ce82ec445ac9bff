"""The allocator keeps freed memory: a large block that is freed and taken again has its pages already."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from training.compute.memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
kept = keep_freed_memory()
faults()
print(first, faults(), kept)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_fewer_page_faults() -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    before, after, kept = int(out[0]), int(out[1]), out[2] == "True"
    if not kept:
        pytest.skip("not glibc")
    assert after < before / 5
