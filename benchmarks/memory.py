"""Peak memory of certifying many images: python benchmarks/memory.py [--n 10000] [--json FILE]

Two processes certify 500 and `--n` test images and report their peak resident memory. Batches are bounded, so it should
grow by the images and results alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

from _measure import report, test_images

import acert_zoo

SMALL = 500


def peak(model_name: str, n: int) -> dict[str, int]:
    """Certifies n images in this process; bytes."""
    model = acert_zoo.load_model(model_name)
    images, labels, _ = test_images(str(acert_zoo.model_info(model_name).dataset), n)
    before = images[:1]
    acert_zoo.certify(model, before, labels[:1])
    result = acert_zoo.certify(model, images, labels)
    unit = 1 if sys.platform == "darwin" else 1024
    tensors = (result.radius, result.margin, result.prediction, result.label, result.seconds)
    numbers = sum(t.element_size() * t.numel() for t in tensors)
    return {
        "peak": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "images": images.element_size() * images.numel(),
        # the numbers, and per image its id, digest and the line that a file would hold
        "results": numbers + sum(sys.getsizeof(x) for x in (*result.ids, *result.pixel_sha256)) + 1500 * len(result),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10_kappa025")
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--json", metavar="FILE", help="also write JSON ('-': to stdout, nothing else)")
    parser.add_argument("--in-this-process", type=int, metavar="N", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process is not None:
        print(json.dumps(peak(options.model, options.in_this_process)))
        return

    def measure(n: int) -> dict[str, int]:
        command = [sys.executable, __file__, "--model", options.model, "--in-this-process", str(n)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    small, large = measure(min(SMALL, options.n)), measure(options.n)
    # the data set's bytes are held beside the float32 pixels made from them while these are made
    loading = (large["images"] - small["images"]) // 4 * 2
    grown, wanted = large["peak"] - small["peak"], large["images"] - small["images"]
    wanted += large["results"] - small["results"]
    rows = [
        ("model", options.model, ""),
        ("images", options.n, ""),
        (f"peak with {min(SMALL, options.n)} images, MiB", small["peak"] / 2**20, ""),
        (f"peak with {options.n} images, MiB", large["peak"] / 2**20, ""),
        ("growth, MiB", grown / 2**20, f"at most {(wanted + loading) / 2**20:.0f}: images, results, data set file"),
        ("images and results, MiB", wanted / 2**20, ""),
    ]
    report("memory", rows, options.json)


if __name__ == "__main__":
    main()
