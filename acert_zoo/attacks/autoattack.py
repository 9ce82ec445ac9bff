"""The AutoAttack ensemble of the optional package `pyautoattack` (Croce and Hein 2020, arXiv 2003.01690), per image.

The library attacks all images at one eps and runs them in batches of its own choosing, but certified radii differ by
image. So it is given the same problem in other coordinates: z in [1/4, 3/4]^d stands for the point
lower + (2 z - 1/2)(upper - lower) of an image's exact box; it starts at z = 1/2 with eps = 1/4, which is the whole box.
One more row of z holds the image's number in binary, as pixels 0 and 1. Perturbed by at most 1/4 (and no gradient
reaches them) they still read as 0 and 1, so the model that the library calls knows whose box it is in.

pyautoattack is the authors' own code with a Python package around it. (torchattacks, the alternative, pins
requests 2.25 and so cannot be installed beside current packages.)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from acert_zoo.attacks.exact_box import Box
from acert_zoo.errors import InvalidInputError, MissingDependencyError

INSTALL = "pip install pyautoattack"


class _Boxed(nn.Module):
    """The attacked model in the coordinates z; see the module."""

    def __init__(self, model: nn.Module, box: Box) -> None:
        super().__init__()
        self.model, self.box = model, box
        self.bits = max(1, (len(box.lower) - 1).bit_length())
        if self.bits > box.lower.shape[3]:
            raise InvalidInputError(f"at most 2^{box.lower.shape[3]} images of this width are attacked at once")
        self.evaluations = 0

    def start(self) -> Tensor:
        """z of every box's centre, [N, C, H + 1, W], with the numbering row."""
        z = torch.full_like(self.box.lower, 0.5)
        row = z.new_zeros(len(z), z.shape[1], 1, z.shape[3])
        numbers = torch.arange(len(z))
        for bit in range(self.bits):
            row[:, 0, 0, bit] = (numbers >> bit & 1).to(z.dtype)
        return torch.cat([z, row], dim=2)

    def points(self, z: Tensor) -> Tensor:
        """The images that z stands for (not yet rounded into the box)."""
        row = z[:, 0, -1, : self.bits].detach() > 0.5
        numbers = sum(row[:, bit].long() << bit for bit in range(self.bits))
        box = self.box.pick(torch.as_tensor(numbers))
        return box.lower + (2 * z[:, :, :-1] - 0.5) * (box.upper - box.lower)

    def forward(self, z: Tensor) -> Tensor:
        self.evaluations += len(z)
        logits: Tensor = self.model(self.points(z))
        return logits


def ensemble(
    model: nn.Module,
    labels: Tensor,
    box: Box,
    *,
    attacks: Sequence[str] = ("apgd-ce", "apgd-t", "fab-t", "square"),
    iterations: int = 100,
    queries: int = 5000,
    batch_size: int = 128,
    seed: int = 0,
) -> tuple[Tensor, int]:
    """The ensemble's last point for every image, inside its box, and the number of points evaluated.

    Whether a point is adversarial is for the caller to check. Targeted attacks try up to 9 classes, and fall away with
    fewer than 4 classes (the DLR loss needs 4).

    Raises:
        MissingDependencyError: pyautoattack is not installed.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise MissingDependencyError(f"the AutoAttack ensemble needs pyautoattack: {INSTALL}") from error
    boxed = _Boxed(model, box).eval()
    start = boxed.start()
    with torch.no_grad():
        classes = model(box.lower[:1]).shape[1]
    names = [a for a in attacks if classes >= 4 or a not in ("apgd-t", "apgd-dlr")]
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    random_state = torch.get_rng_state()
    try:
        library = AutoAttack(boxed, norm="Linf", eps=0.25, version="custom", attacks=names, seed=seed, device="cpu")
        library.apgd.n_iter = library.apgd_targeted.n_iter = library.fab.n_iter = iterations
        library.apgd.n_restarts = library.fab.n_restarts = 1
        library.apgd_targeted.n_target_classes = library.fab.n_target_classes = min(9, classes - 1)
        library.square.n_queries = queries
        z, _ = library.run_standard_evaluation(start, labels, batch_size=batch_size)
        with torch.no_grad():
            return box.clamp(boxed.points(z)), boxed.evaluations
    finally:
        torch.set_rng_state(random_state)
