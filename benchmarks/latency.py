"""What one image costs: python benchmarks/latency.py [--model NAME] [--json FILE]

Two questions. In a service: `predict_certified` on a batch of one against a plain forward pass, in turns. In a shell:
`acert-zoo certify` of one bundled image file against a Python that only imports torch, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from _measure import interleaved, median_ratio, report

import acert_zoo
from acert_zoo.bounds.certified_prediction import predict_certified


def command_line(model: str, image: torch.Tensor, turns: int) -> dict[str, list[float]]:
    """Seconds of `import torch`, of certifying one PNG file, and of listing the models, each in a new process."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
        Image.fromarray(pixels).save(path)
        program = [sys.executable, "-m", "acert_zoo.cli"]
        if subprocess.run([*program, "list"], capture_output=True, check=False).returncode:
            program = [str(Path(sys.executable).with_name("acert-zoo"))]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "certify": [*program, "certify", "--model", model, str(path)],
            "list": [*program, "list"],
        }

        def run(command: list[str]) -> None:
            subprocess.run(command, check=True, capture_output=True)

        return interleaved({name: lambda c=c: run(c) for name, c in commands.items()}, turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10_kappa025")
    parser.add_argument("--eps", default="2/255")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--json", metavar="FILE", help="also write JSON ('-': to stdout, nothing else)")
    options = parser.parse_args()
    model = acert_zoo.load_model(options.model)
    images, _ = acert_zoo.sample_data(str(acert_zoo.model_info(options.model).dataset), 1)
    with torch.no_grad():
        served = interleaved(
            {
                "forward": lambda: model(images).argmax(1),
                "certified": lambda: predict_certified(model, images, options.eps),
                "deployed": lambda: predict_certified(model, images, options.eps, rounding="float32-deployed"),
            },
            options.turns,
        )
    started = command_line(options.model, images[0], 5)
    milliseconds = {name: 1000 * statistics.median(values) for name, values in served.items()}
    median = {name: statistics.median(values) for name, values in started.items()}
    rows = [
        ("model", options.model, ""),
        ("plain prediction, ms", milliseconds["forward"], ""),
        ("certified prediction (real-sound), ms", milliseconds["certified"], ""),
        ("certified prediction (float32-deployed), ms", milliseconds["deployed"], ""),
        ("certified / plain", median_ratio(served["certified"], served["forward"]), "at most 6"),
        ("python -c 'import torch', s", median["import torch"], ""),
        ("acert-zoo certify of one image file, s", median["certify"], ""),
        ("seconds beyond importing torch", median["certify"] - median["import torch"], "at most 1"),
        ("acert-zoo list, s", median["list"], ""),
    ]
    report("latency", rows, options.json)


if __name__ == "__main__":
    main()
