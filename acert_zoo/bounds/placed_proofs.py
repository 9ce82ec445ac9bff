"""A network ready for float64 proofs: on the CPU, and on the device of a search where that one may run them too."""

from __future__ import annotations

import torch
from torch import Tensor

from acert_zoo.bounds import device_probe, proof_device
from acert_zoo.bounds.box_changes import BoxChange
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.errors import UnsoundSettingError
from acert_zoo.network.graph import Network
from acert_zoo.rounding import RoundingLevel


class PlacedProofs:
    """What proves radii of one network at one level.

    Args:
        network: detached, float32.
        device: of the search.

    Attributes:
        rigorous, change: on the CPU; no change where every eps is to be proved in float64.

    Raises:
        UnsoundSettingError, UnsupportedLayerError: the level cannot be claimed; see `RigorousNetwork`.
    """

    def __init__(self, network: Network, rounding: str, device: torch.device) -> None:
        # At float32-deployed a network that lies elsewhere is refused: that level is about a program of the CPU.
        if network.head.weight.device.type != "cpu" and rounding != RoundingLevel.FLOAT32_DEPLOYED:
            network = network.map_tensors(lambda t: t.detach().cpu())
        self.rigorous, self.change = RigorousNetwork(network, rounding), BoxChange.of(network, rounding)
        self.network, self.rounding, self.device = network, rounding, device
        self._placed: dict[tuple[int, ...], RigorousNetwork | None] = {}  # by the shape of an image

    def of(self, images: Tensor) -> tuple[RigorousNetwork, BoxChange | None]:
        """What proves images of this shape, float32 [N, C, H, W] on the CPU, N >= 1.

        The changes of a box are float32 sums, of which only the CPU's are known: elsewhere every eps is proved anew.
        """
        if self.device.type != "cpu":
            shape = tuple(images.shape[1:])
            if shape not in self._placed:
                self._placed[shape] = self._elsewhere(images)
            if (placed := self._placed[shape]) is not None:
                return placed, None
        return self.rigorous, self.change

    def _elsewhere(self, images: Tensor) -> RigorousNetwork | None:
        try:
            return placed_network(self.network, self.rounding, self.device, images)
        except (UnsoundSettingError, torch.cuda.OutOfMemoryError):
            return None  # `proof_device.refused` says why, to who asks


def placed_network(network: Network, rounding: str, device: torch.device, images: Tensor) -> RigorousNetwork:
    """`network` (float32, on the CPU) for proofs on `device`, which is asked for known sums of each of its layers.

    Args:
        images: as for `PlacedProofs.of`; only their shape counts.

    Raises:
        UnsoundSettingError: what `device` computes is not known, or not what the rules assume.
    """
    proof_device.check_device(device)
    with proof_device.plain_sums(device):
        device_probe.probe_network(network.to(torch.float64), images, lambda t: t.to(device))
    return RigorousNetwork(network, rounding, device=device)
