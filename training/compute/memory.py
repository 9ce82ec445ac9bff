"""Freed memory stays with the process: on CPUs a training step is otherwise busy with page faults for half of its time.

Every activation of a batch is larger than glibc's threshold (at most 32 MiB) above which an allocation is a mapping of
its own, given back to the system when it is freed. The next one faults in all its pages again, zeroed: on the machine
of docs/training.md a ReLU of 33 MB took 23 ms that way and takes 5 ms with memory that is used again.
"""

from __future__ import annotations

import ctypes
import sys

# from malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to map nothing apart and to return nothing to the system; whether there was one to tell.

    For the whole process and for good; its memory never shrinks below its peak. Elsewhere than on Linux with glibc
    nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) == 1 for name, value in settings])
