"""A run on Ray, as a process of its own that a test may kill: `python -m tests.support.ray_run DATA OUT MARKER`.

It says BEGUN once Ray's session is there: on a machine without a core to spare Ray may miss its own deadlines. At its
end the workers verify the files.

Reading the third shard kills the worker that does it, once: MARKER says whether it has. Every shard takes a moment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from torch import Tensor

from acert_zoo import certify_dataset
from acert_zoo.certificates.ray_engine import RayEngine
from acert_zoo.certificates.verify_files import verify_files
from acert_zoo.data.array_source import ArraySource
from tests.support.models import SHAPE, small_model

VERIFIED = "files verified by workers:"
BEGUN = "Ray's session has begun"
SIZES = {"batch_size": 4, "shard_size": 4}


class Deadly(ArraySource):
    """Images whose reader is killed when it first comes to the third shard."""

    marker = Path()
    driver = os.getpid()

    def read(self, rows: range) -> tuple[Tensor, Tensor | None]:
        if os.getpid() != self.driver:
            time.sleep(0.3)
            if rows.start == 8 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().read(rows)


def main(data: str, out: str, marker: str) -> None:
    source = Deadly(data, None, SHAPE)
    object.__setattr__(source, "marker", Path(marker))
    object.__setattr__(source, "driver", os.getpid())
    engine = RayEngine(workers=2)
    print(BEGUN, flush=True)
    model = small_model(1)
    certify_dataset(model, source, out=out, engine=engine, **SIZES)
    images, _ = source.read(range(len(source)))
    by_id = {str(i): image for i, image in enumerate(images)}
    reports = list(verify_files([out], model=model, images=by_id, engine="ray"))
    print(VERIFIED, sum(report.ok for report in reports), flush=True)
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
