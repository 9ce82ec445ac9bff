"""Certified cascades: accurate and robust classifiers behind gates that are themselves certified.

Member k of K answers where it is the first whose own prediction interval bounds prove at radius g_k (its gate); the
last member answers everything else. docs/cascade.md states and proves what is certified; the certificates are computed
in `cascades/certificate.py`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo._files import write_atomically
from acert_zoo.attacks.pgd import Objective
from acert_zoo.bounds.certified_prediction import predict_certified
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.preconditions import deployed_claimable
from acert_zoo.bounds.proved_margins import PROOF_BATCH_SIZE
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.cascades.certificate import Answer, CascadeCertifier, CascadeProver
from acert_zoo.data.checks import check_eval_mode
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.exact_numbers import parse_eps, round_up
from acert_zoo.network.digest import modules_sha256
from acert_zoo.network.graph import Network
from acert_zoo.network.layers import BatchNorm
from acert_zoo.network.reading import read
from acert_zoo.network.torch_modules.known_layers import is_known, is_plain
from acert_zoo.network.torch_modules.module_state import ModuleState
from acert_zoo.network.tracing import trace
from acert_zoo.rounding import BoundMethod, RoundingLevel

GATE_CONSTANT = 5.0  # the c of the gate's check P_c; certificates use 25 and 1 (docs/cascade.md)
SCHEMA_VERSION = 1
Gate = str | float | Fraction


class Cascade(nn.Module):
    """A classifier that asks its members in turn: raw pixels [N, C, H, W] in [0, 1] in, logits [N, K] out.

    Args:
        members: the classifiers, most robust first. All but the last must be networks that interval bounds cover, with
            BatchNorm folded; the last may be any module that returns logits.
        gates: one radius in (0, 1] (pixel units, "2/255" or a number) for each member but the last.

    Raises:
        InvalidInputError: other numbers of gates than members less one, gates out of range, members that take other
            images or other classes.
        UnsupportedLayerError, UnsoundSettingError: a gated member that rigorous bounds do not cover.
    """

    info: Any = None  # the record of a registered cascade (acert_zoo.zoo.model_info.ModelInfo)

    def __init__(self, members: Sequence[nn.Module], gates: Sequence[Gate]) -> None:
        super().__init__()
        listed = isinstance(members, (list, tuple, nn.ModuleList)) and isinstance(gates, (list, tuple))
        if not listed or not all(isinstance(member, nn.Module) for member in members):
            raise InvalidInputError(f"a cascade takes a list of models and a list of gates, got {members!r:.80}")
        if not members or len(gates) != len(members) - 1:
            raise InvalidInputError(
                f"a cascade has one gate for each member but the last, got {len(members)} members, {len(gates)} gates"
            )
        self.members = nn.ModuleList(members)
        self.gate_texts = tuple(g if isinstance(g, str) else str(parse_eps(g)) for g in gates)
        self.exact_gates = tuple(parse_eps(g) for g in gates)
        for gate in self.exact_gates:
            if not 0 < gate <= 1:
                raise InvalidInputError(f"gates are radii in (0, 1], got {gate}")
        self.gates = tuple(round_up(g) for g in self.exact_gates)  # the float64 numbers that are checked
        for attribute in ("input_shape", "num_classes"):
            values = {getattr(m, attribute) for m in members if hasattr(m, attribute)}
            if len(values) > 1:
                raise InvalidInputError(f"members of a cascade differ in {attribute}: {sorted(values)}")
        self._gate_cache: dict[int, tuple[Any, Network, RigorousNetwork]] = {}
        self._prover_cache: dict[str, tuple[ModuleState, Any, CascadeProver]] = {}
        for k in range(len(self.gates)):
            if is_known(members[k]) or not members[k].training:
                self._gate(k)
            else:  # read again in eval mode, at its first use
                trace(copy.deepcopy(members[k]).eval(), self.input_shape)

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images).logits

    def route(self, images: Tensor) -> Tensor:
        """[N] int64: which member answers each image, from 0."""
        with torch.no_grad():
            return self.answer(images).route

    def answer(self, images: Tensor) -> Answer:
        """Logits and route. Members run only on the images that reach them.

        The label that a gate checks is the argmax of the very logits that are returned: both come from one call of the
        member, so they agree even where another batch would have rounded the logits differently.

        Raises:
            UnsoundSettingError: the cascade is in train mode, or not on the CPU.
            InvalidInputError: images that are not float32.
        """
        if self.training:
            raise UnsoundSettingError("the cascade is in train mode, its gates prove nothing: call .eval()")
        if images.dtype != torch.float32:
            raise InvalidInputError(f"a cascade takes float32 pixels, got {images.dtype}")
        route = torch.full((len(images),), len(self.members) - 1, dtype=torch.int64)
        left = torch.arange(len(images))
        parts: list[Tensor] = []
        order: list[Tensor] = []
        for k, member in enumerate(self.members):
            if k and not len(left):
                break
            here = images if not parts and len(left) == len(images) else images[left]
            logits = member(here)
            answered = torch.ones(len(left), dtype=torch.bool)
            if k < len(self.gates):
                answered = self.gate_open(k, here.detach(), logits.detach().argmax(1))
            route[left[answered]] = k
            parts.append(logits[answered])
            order.append(left[answered])
            left = left[~answered]
        return Answer(torch.cat(parts)[torch.cat(order).argsort()], route)

    @torch.no_grad()
    def gate_open(self, k: int, images: Tensor, labels: Tensor) -> Tensor:
        """[N] bool: member k's gate, the rigorous check P_5(x, g_k; label). Closed for pixels outside [0, 1] or NaN."""
        is_open = ((images >= 0) & (images <= 1)).flatten(1).all(1)
        valid = is_open.nonzero().flatten()
        for index in valid.split(PROOF_BATCH_SIZE) if len(valid) else []:
            is_open[index] = self._gate(k)[1].proves(images[index], labels[index], self.gates[k])
        return is_open

    def _gate(self, k: int) -> tuple[Network, RigorousNetwork]:
        """Member k's network and gate check; built again where the member's weights have changed."""
        if k not in self._gate_cache or not self._gate_cache[k][0].unchanged(self.members[k]):
            state, member = ModuleState(self.members[k]), self.members[k]
            network = trace(member).detach() if is_known(member) else read(member, self.input_shape).network
            if any(isinstance(step, BatchNorm) for step in network.steps):
                raise UnsupportedLayerError(f"member {k} has BatchNorm layers; gated members need them folded")
            self._gate_cache[k] = (state, network, RigorousNetwork(network, constant=GATE_CONSTANT))
        return self._gate_cache[k][1:]

    def certifier(
        self, *, method: str = BoundMethod.IBP, rounding: str = RoundingLevel.REAL_SOUND, budget: float | None = None
    ) -> CascadeCertifier:
        """What `acert_zoo.certify` uses for a cascade, at level real-sound or stronger (`budget` has no meaning here).

        Raises:
            InvalidInputError: another method than "ibp".
            UnsoundSettingError: train mode; no plain cascade (`check_plain`).
        """
        if method != BoundMethod.IBP:
            raise InvalidInputError(f"cascades are certified with method 'ibp', got {method!r}")
        level = (
            RoundingLevel.REAL_SOUND if rounding == RoundingLevel.FLOAT32 else rounding
        )  # nothing weaker is computed
        check_eval_mode(self)
        self.check_plain()
        return CascadeCertifier(
            self.answer,
            CascadeProver(self.members, self.gates, self.input_shape, level),
            rounding=level,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            network_sha256=self.network_sha256,
        )

    def prover(self, *, rounding: str = RoundingLevel.REAL_SOUND) -> CascadeProver:
        """Rigorous checks at claimed radii, without a search, for `verify` and `predict_certified`.

        The `CascadeProver` is kept until a weight or a setting that it depends on changes.
        """
        check_eval_mode(self)
        self.check_plain()
        settings = (deployed_claimable(), self.gates)
        kept = self._prover_cache.get(rounding)
        if kept is None or kept[1] != settings or not kept[0].unchanged(self.members):
            state = ModuleState(self.members)
            prover = CascadeProver(self.members, self.gates, self.input_shape, rounding)
            kept = self._prover_cache[rounding] = (state, settings, prover)
        return kept[2]

    def check_plain(self) -> None:
        """Certificates are about this class's own forward.

        Raises:
            UnsoundSettingError: a subclass, a hook, or a method replaced on the instance.
        """
        if not is_plain(self, Cascade):
            raise UnsoundSettingError(
                f"this {type(self).__name__} is not certified as a cascade: it is a subclass, has forward hooks, or "
                "one of its methods was replaced; certificates are about what Cascade itself computes"
            )

    def predict_certified(
        self, images: Tensor, eps: str | float | Fraction, *, rounding: str = RoundingLevel.REAL_SOUND
    ) -> Any:
        """Labels, and whether each is proved not to change within `eps`; see
        `acert_zoo.bounds.certified_prediction.predict_certified`."""
        return predict_certified(self, images, eps, rounding=rounding)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out what is computed from the members."""
        return {**self.__dict__, "_gate_cache": {}, "_prover_cache": {}}

    @property
    def network_sha256(self) -> str:
        """Digest of everything that certificates depend on: the members' weights and the gates."""
        return modules_sha256(self.members, repr(self.gates))

    def attack_objectives(self) -> list[tuple[str, Objective]]:
        """Functions for attacks to descend: each gate's margin, to close the gate, and its negative, to open it."""

        def gate(k: int, sign: float) -> Objective:
            def value(points: Tensor, labels: Tensor) -> Tensor:
                network = self._gate(k)[0]
                own = network(points.detach()).argmax(1)
                return sign * robust_margin(network, points, own, self.gates[k]).double()

            return value

        signs = (("close", 1.0), ("open", -1.0))
        return [(f"gate{k}-{name}", gate(k, sign)) for k in range(len(self.gates)) for name, sign in signs]

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of the images, None where no member says it."""
        return next((tuple(m.input_shape) for m in self.members if hasattr(m, "input_shape")), None)  # type: ignore

    @property
    def num_classes(self) -> int:
        """The number of logits."""
        known = [int(m.num_classes) for m in self.members if hasattr(m, "num_classes")]  # type: ignore[arg-type]
        return known[0] if known else self._gate(0)[0].num_classes

    def to_dict(self) -> dict[str, Any]:
        """The cascade file: members by versioned name and digest of their weights, gates as exact strings.

        Raises:
            InvalidInputError: a member is not a checkpoint of the registry.
        """
        members = []
        for k, member in enumerate(self.members):
            info = getattr(member, "info", None)
            if info is None or info.sha256 is None or member.weights_sha256 != info.sha256:
                raise InvalidInputError(
                    f"member {k} is no unchanged registered checkpoint; a cascade file cannot name it"
                )
            members.append({"name": info.versioned_name, "sha256": info.sha256})
        return {"schema_version": SCHEMA_VERSION, "members": members, "gates": list(self.gate_texts)}

    def to_bytes(self) -> bytes:
        """`to_dict` as the bytes of a cascade file; equal cascades give equal bytes."""
        return (json.dumps(self.to_dict(), indent=1) + "\n").encode()

    @property
    def weights_sha256(self) -> str | None:
        """sha256 of the cascade file, which names the members' digests; None where it cannot name them."""
        try:
            return hashlib.sha256(self.to_bytes()).hexdigest()
        except InvalidInputError:
            return None

    def save(self, path: str | os.PathLike[str]) -> tuple[str, int]:
        """Writes the cascade file atomically; returns (sha256, size) for the registry."""
        content = self.to_bytes()
        write_atomically(Path(path), content)
        return hashlib.sha256(content).hexdigest(), len(content)

    def extra_repr(self) -> str:
        return f"gates=({', '.join(self.gate_texts)})"
