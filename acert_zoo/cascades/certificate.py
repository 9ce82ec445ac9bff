"""Certified radii of cascades. docs/cascade.md derives the rules; this module computes what it states.

For an image x with answer y, and for member k: label y_k (argmax of its float32 logits at x), p_k a radius at which
P_1(x, p_k; y_k) passes, h_k one at which P_25(x, h_k; y_k) passes with the float32 terms of level float32-deployed, and
e_k one at which P_1(x, e_k; y_k) is finite and fails. With gates g_k, k = 1 .. K:
    o_k = max(0, h_k - g_k)                                  an attack must move this far to close an open gate,
    t_k = max(p_k, g_k) if y_k = y, max(0, g_k - e_k) else   or this far for member k to answer other than y,
    t_K = p_K if y_K = y, 0 else,       t_k = 0 where P_1(x, 0; y_k) fails,
    rho = min over k of max(t_k, max over i < k of o_i).
`CascadeProver.proves` decides directly whether rho is at least a given radius; `CascadeProver.radii` searches, and
returns radii that `proves` has accepted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from acert_zoo.bounds.certifier import BatchCertificates
from acert_zoo.bounds.directed_rounding import difference_down, sum_up
from acert_zoo.bounds.ibp import robust_margin
from acert_zoo.bounds.proved_margins import PROOF_BATCH_SIZE
from acert_zoo.bounds.radius_search import RadiusSearch
from acert_zoo.bounds.rigorous_ibp import RigorousNetwork
from acert_zoo.bounds.root_finding import find_roots
from acert_zoo.data.checks import check_eval_mode
from acert_zoo.errors import InvalidInputError, UnsoundSettingError, UnsupportedLayerError
from acert_zoo.network.agreement import Agreement
from acert_zoo.network.reading import read
from acert_zoo.rounding import PROVED_LEVELS, BoundMethod, RoundingLevel

if TYPE_CHECKING:  # a cascade makes its certifier, which asks it for members, gates and answers
    from acert_zoo.cascades.cascade import Cascade

OPEN_CONSTANT = 25.0  # c of the check that shows a gate to be open all around
SEARCH_RTOL = 1e-4  # of h_k, which costs far more a step than p_k
SMALLEST_LAST = 1e-4  # a radius of the last member below this (1/39 of 1/255) is not looked for


class _Member:
    """The rigorous checks of one member on one batch of images, with its labels there."""

    def __init__(
        self, module: nn.Module, gate: float | None, rounding: str, input_shape: tuple[int, ...] | None
    ) -> None:
        self.module = module
        self.agreement: Agreement | None = None
        self.gate = None if gate is None else torch.tensor(gate, dtype=torch.float64)
        self.inner: RigorousNetwork | None = None  # P_1; of the last member at the level asked for
        self.outer: RigorousNetwork | None = None  # P_25 with the float32 terms, of gated members
        self.search: RadiusSearch | None = None
        try:
            reading = read(module, input_shape)
            network = reading.network
            own = RoundingLevel.REAL_SOUND if gate is not None else rounding
            self.inner, self.search = RigorousNetwork(network, own), RadiusSearch(network, own)
            self.agreement = reading.agreement
        except (UnsupportedLayerError, UnsoundSettingError, InvalidInputError):
            if gate is not None:
                raise
            self.inner = self.search = None
            return  # the last member may be anything: then it contributes no radius of its own
        if gate is not None:
            try:
                self.outer = RigorousNetwork(network, RoundingLevel.FLOAT32_DEPLOYED, constant=OPEN_CONSTANT)
            except (UnsupportedLayerError, UnsoundSettingError):
                self.outer = None  # then o_k = 0

    def labels(self, images: Tensor) -> Tensor:
        """y_k: the argmax of the member's float32 logits."""
        return self.logits(images).argmax(1)

    def logits(self, images: Tensor) -> Tensor:
        """The member's own logits, held against the network that its bounds are about."""
        return self.module(images) if self.agreement is None else self.agreement.images(images)

    def labels_and_proved(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(y_k, p_k), p_k = 0 where nothing is proved."""
        assert self.search is not None
        logits = self.logits(images)
        labels = logits.argmax(1)
        return labels, self.search(images, labels, logits).radius

    def proved(self, images: Tensor, labels: Tensor, wanted: Tensor, floor: Tensor) -> Tensor:
        """t_K where `wanted`, 0 elsewhere; none is looked for that is below `floor` or SMALLEST_LAST."""
        out = torch.zeros_like(floor)
        if self.search is None:
            return out
        index = wanted.nonzero().flatten()
        probe = floor[index].clamp(min=SMALLEST_LAST)
        index = index[robust_margin(self.search.network, images[index], labels[index], probe.float()) > 0]
        if len(index):
            x = images[index]
            out[index] = self.search(x, labels[index], self.logits(x)).radius
        return out

    def kept_open(self, images: Tensor, labels: Tensor, proved: Tensor) -> Tensor:
        """o_k = max(0, h_k - g_k), 0 where the float32 terms cannot be claimed."""
        assert self.gate is not None
        out = torch.zeros_like(proved)
        if self.outer is None or not len(proved):
            return out
        start = _margins(self.outer, images, labels, torch.zeros_like(proved))
        index = ((start > 0) & torch.isfinite(start)).nonzero().flatten()

        def evaluate(rows: Tensor, eps: Tensor) -> Tensor:
            return _margins(self.outer, images[index[rows]], labels[index[rows]], eps)

        first = proved[index] * (1 - 2e-3)  # the float32 terms cost about this much
        roots = find_roots(evaluate, start[index], first, torch.full_like(first, 1.2), SEARCH_RTOL)
        out[index] = difference_down(roots.low, self.gate.expand_as(roots.low)).clamp(min=0.0)
        return out

    def kept_closed(self, images: Tensor, labels: Tensor, proved: Tensor) -> Tensor:
        """max(0, g_k - e_k), e_k a little above p_k; 0 where no finite failure is found there."""
        assert self.gate is not None
        out, left = torch.zeros_like(proved), torch.arange(len(proved))
        for factor in (1 + 3e-6, 1 + 1e-5, 1 + 1e-4, 1.001, 1.01, 1.1):
            if not len(left):
                break
            trial = proved[left] * factor
            margins = _margins(self.inner, images[left], labels[left], trial)
            failed = (margins <= 0) & torch.isfinite(margins)
            out[left[failed]] = difference_down(self.gate.expand_as(trial), trial)[failed].clamp(min=0.0)
            left = left[~failed]
        return out


def _margins(network: RigorousNetwork | None, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    if network is None:
        return torch.full_like(eps, -math.inf)
    parts = zip(
        images.split(PROOF_BATCH_SIZE), labels.split(PROOF_BATCH_SIZE), eps.split(PROOF_BATCH_SIZE), strict=True
    )
    return torch.cat([network.margins(x, y, e) for x, y, e in parts]) if len(eps) else eps


class CascadeProver:
    """The checks of docs/cascade.md for one cascade, a `RoutedProver`; snapshots of its members are made once.

    Args:
        cascade: in eval mode, on the CPU.
        rounding: level of the last member's own radius, "real-sound" or "float32-deployed"; everything else that
            enters a certificate holds for the program in any case.

    Raises:
        UnsoundSettingError, InvalidInputError, UnknownNameError: train mode, or a level that cannot be claimed.
    """

    def __init__(self, cascade: Cascade, rounding: str = RoundingLevel.REAL_SOUND) -> None:
        check_eval_mode(cascade)
        if rounding not in PROVED_LEVELS:
            raise InvalidInputError(f"cascades are certified at {' or '.join(PROVED_LEVELS)}, got {rounding!r}")
        self.cascade = cascade
        gates = [*cascade.gates, None]
        self.members = [
            _Member(m, g, rounding, cascade.input_shape) for m, g in zip(cascade.members, gates, strict=True)
        ]

    @torch.no_grad()
    def proves(self, images: Tensor, answers: Tensor, eps: Tensor) -> Tensor:
        """[N] bool: the cascade answers `answers` at every float32 image within `eps` (closed ball, float64 [N]).

        No search: only rigorous checks at the radii that the claim itself implies.
        """
        held = torch.ones(len(images), dtype=torch.bool)  # every stage so far keeps the answer
        blocked = torch.zeros(len(images), dtype=torch.bool)  # an earlier gate is open all around
        for member in self.members:
            todo = (held & ~blocked).nonzero().flatten()
            if not len(todo):
                break
            x, e = images[todo], eps[todo]
            y = member.labels(x)
            same = y == answers[todo]
            keeps = self._keeps(member, x, y, same, e)
            if member.gate is not None:
                opens = _margins(member.outer, x, y, sum_up(e, member.gate.expand_as(e))) > 0
                blocked[todo] = opens
            held[todo] = keeps
        return held

    def _keeps(self, member: _Member, x: Tensor, y: Tensor, same: Tensor, eps: Tensor) -> Tensor:
        """t_k >= eps, of images x with labels y_k; `same`: y_k is the answer."""
        keeps, sure = torch.zeros_like(same), torch.zeros_like(same)
        asked = same if member.gate is None else torch.ones_like(same)  # the last member counts where it agrees
        sure[asked] = _margins(member.inner, x[asked], y[asked], torch.zeros_like(eps[asked])) > 0
        check = same & sure
        if member.gate is not None:
            keeps |= check & (eps <= member.gate)
            check &= eps > member.gate
        keeps[check] = _margins(member.inner, x[check], y[check], eps[check]) > 0
        if member.gate is not None:
            fails_at = difference_down(member.gate.expand_as(eps), eps)
            check = ~same & sure & (fails_at >= 0)
            margins = _margins(member.inner, x[check], y[check], fails_at[check])
            keeps[check] = (margins <= 0) & torch.isfinite(margins)
        return keeps

    @torch.no_grad()
    def may_answer(self, images: Tensor, answers: Tensor, route: Tensor) -> Tensor:
        """[N] bool: whether member `route` (int64 [N]) may be the one that says `answers`, in some order of summation.

        By nesting, a gate whose P_25 passes here is open in every evaluation, one whose P_1 fails here is open in none.
        """
        possible = (route >= 0) & (route < len(self.members))
        for k, member in enumerate(self.members[:-1]):
            gate = torch.full((len(images),), self.cascade.gates[k], dtype=torch.float64)
            passed = (possible & (route > k)).nonzero().flatten()
            if len(passed):
                x = images[passed]
                possible[passed] = ~(_margins(member.outer, x, member.labels(x), gate[passed]) > 0)
            here = (possible & (route == k)).nonzero().flatten()
            possible[here] = _margins(member.inner, images[here], answers[here], gate[here]) > 0
        return possible

    @torch.no_grad()
    def radii(self, images: Tensor, answers: Tensor) -> Tensor:
        """rho of every image (float64 [N], at most 1), each accepted by `proves`; 0 where nothing is proved.

        For an image, a member costs at most one `RadiusSearch`, then 1 + 30 checks for an open gate (the evaluations of
        `find_roots` at SEARCH_RTOL) or 6 for a closed one; accepting costs at most ten times what `proves` does.
        """
        rho = torch.ones(len(images), dtype=torch.float64)
        opened = torch.zeros_like(rho)  # max over earlier k of o_k
        for member in self.members:
            todo = (opened < rho).nonzero().flatten()
            if not len(todo):
                break
            x, floor = images[todo], opened[todo]
            if member.gate is None:
                y = member.labels(x)
                kept = member.proved(x, y, (y == answers[todo]), floor)
            else:
                y, proved = member.labels_and_proved(x)
                gate = member.gate.expand_as(proved)
                same = y == answers[todo]
                kept = torch.where(same, torch.maximum(proved, gate), 0.0)
                check = (~same & (proved < gate)).nonzero().flatten()
                kept[check] = member.kept_closed(x[check], y[check], proved[check])
                kept[proved <= 0] = 0.0
                wide = (proved > gate).nonzero().flatten()
                opened[todo[wide]] = torch.maximum(floor[wide], member.kept_open(x[wide], y[wide], proved[wide]))
            rho[todo] = torch.minimum(rho[todo], torch.maximum(kept, floor))
        return self._accepted(images, answers, rho)

    def _accepted(self, images: Tensor, answers: Tensor, rho: Tensor) -> Tensor:
        """rho, stepped down where `proves` refuses it: relative 1e-6, then coarser, at last 0."""
        pending = (rho > 0).nonzero().flatten()
        for factor in (1.0, 1 - 1e-6, 1 - 1e-5, 1 - 1e-4, 1 - 1e-3, 0.99, 0.9, 0.5, 0.1, 0.0):
            trial = rho[pending] * factor
            passed = self.proves(images[pending], answers[pending], trial) & (trial > 0)
            rho[pending[passed]] = trial[passed]
            pending = pending[~passed]
        rho[pending] = 0.0
        return rho


class CascadeCertifier:
    """Certifies batches for `acert_zoo.certify`; see `acert_zoo.bounds.certifier.Certifier`."""

    def __init__(self, cascade: Cascade, method: str, rounding: str) -> None:
        if method != BoundMethod.IBP:
            raise InvalidInputError(f"cascades are certified with method 'ibp', got {method!r}")
        # nothing weaker is computed
        self.rounding = RoundingLevel.REAL_SOUND if rounding == RoundingLevel.FLOAT32 else rounding
        self.prover = CascadeProver(cascade, self.rounding)
        self.cascade = cascade
        self.input_shape, self.num_classes = cascade.input_shape, cascade.num_classes
        self.network_sha256 = cascade.network_sha256

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None) -> BatchCertificates:
        answer = self.cascade.answer(images)
        prediction = answer.logits.argmax(1)
        label = prediction if labels is None else labels
        radius = torch.zeros(len(images), dtype=torch.float64)
        right = (prediction == label).nonzero().flatten()
        radius[right] = self.prover.radii(images[right], prediction[right])
        n = len(images)
        return BatchCertificates(
            radius=radius,
            margin=torch.full_like(radius, math.nan),  # a cascade's radius belongs to several margins
            prediction=prediction,
            label=label,
            method=[BoundMethod.IBP] * n,
            roundings=[self.rounding] * n,
            route=answer.route.tolist(),
        )
