"""What the log says of a model after each epoch: accuracy and IBP-certified accuracies on the validation split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.data import datasets
from acert_zoo.data.registration import dataset_info
from acert_zoo.exact_numbers import parse_eps
from acert_zoo.network.tracing import trace
from training.compute import distributed
from training.recipes.recipe import Recipe

# Radii at which images are certified, as shares of eps_max. Dense towards 0, where radii of fragile models lie.
GRID = (*(2.0**-k for k in range(10, 4, -1)), *(i / 16 for i in range(1, 17)))
BATCH = 500


class Validation:
    """The held-out images (the first `recipe.validation_images` of them) on `device`, shared out among the ranks."""

    def __init__(self, recipe: Recipe, data_root: str | None, device: torch.device) -> None:
        images, labels = datasets.load_split(recipe.dataset, "val", data_root)
        self.total = min(recipe.validation_images, len(labels))
        mine = slice(distributed.rank(), self.total, distributed.world_size())
        self.images = torch.from_numpy(np.ascontiguousarray(images[mine])).to(device)
        self.labels = torch.from_numpy(np.ascontiguousarray(labels[mine])).to(device)
        self.recipe = recipe

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """Accuracy (%), ACR (% of eps_max, and pixel units up to eps_max) and certified accuracies (%) of `model`.

        Bounds are float32 IBP, rounding not controlled. The mean of min(r, eps_max) is the integral of the certified
        accuracy from 0 to eps_max, by the trapezoid rule on GRID.
        """
        network = trace(model).fold_batchnorm().detach()
        eps_max = self.recipe.radius.eps_max_value
        reported = dataset_info(self.recipe.dataset).reported_eps
        radii = [eps_max * share for share in GRID] + [float(parse_eps(e)) for e in reported]
        counts = torch.zeros(1 + len(radii), device=self.labels.device)
        for start in range(0, len(self.labels), BATCH):
            part = slice(start, start + BATCH)
            counts += self._count(network, datasets.to_pixels(self.images[part]), self.labels[part], radii)
        percent = distributed.mean_over_ranks(counts) * distributed.world_size() * (100 / self.total)
        accuracy, *certified = percent.tolist()
        curve = [accuracy, *certified[: len(GRID)]]
        acr = float(torch.trapezoid(torch.tensor(curve, dtype=torch.float64), torch.tensor([0.0, *GRID])))
        return {
            "accuracy": accuracy,
            "acr_percent": acr,
            "acr": acr / 100 * eps_max,
            **{f"certified_{e}": value for e, value in zip(reported, certified[len(GRID) :], strict=True)},
        }

    @staticmethod
    def _count(network: object, images: Tensor, labels: Tensor, radii: list[float]) -> Tensor:
        """[1 + len(radii)]: correct images, then correct images certified at each radius."""
        counts = torch.zeros(1 + len(radii), device=labels.device)
        right = network(images).argmax(1) == labels  # type: ignore[operator]
        images, labels = images[right], labels[right]
        counts[0] = len(labels)
        for k in np.argsort(radii, kind="stable"):  # an image not proved at one radius is not proved at a larger one
            if len(labels):
                proved = robust_margin(network, images, labels, radii[k]) > 0  # type: ignore[arg-type]
                images, labels = images[proved], labels[proved]
            counts[1 + k] = len(labels)
        return counts
