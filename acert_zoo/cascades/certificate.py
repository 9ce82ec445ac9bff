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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acert_zoo.bounds.certifier import BatchCertificates
from acert_zoo.bounds.directed_rounding import difference_down, sum_up
from acert_zoo.cascades.member_checks import MemberChecks, least_margins
from acert_zoo.errors import InvalidInputError
from acert_zoo.rounding import PROVED_LEVELS, BoundMethod, RoundingLevel


@dataclass(frozen=True)
class Answer:
    """What a cascade says: logits [N, K] of the members that answered, and route [N] int64, which member (from 0)."""

    logits: Tensor
    route: Tensor


class CascadeProver:
    """The checks of docs/cascade.md for one cascade, a `RoutedProver`; snapshots of its members are made once.

    Args:
        members: the cascade's, in eval mode, on the CPU.
        gates: the float64 radius that each member but the last is checked at.
        input_shape: (C, H, W) of the images, None where no member says it.
        rounding: level of the last member's own radius, "real-sound" or "float32-deployed"; everything else that
            enters a certificate holds for the program in any case.

    Raises:
        InvalidInputError: a level that proves nothing.
        UnsoundSettingError, UnsupportedLayerError: a gated member that rigorous bounds do not cover.
    """

    def __init__(
        self,
        members: Iterable[nn.Module],
        gates: Sequence[float],
        input_shape: tuple[int, ...] | None,
        rounding: str = RoundingLevel.REAL_SOUND,
    ) -> None:
        if rounding not in PROVED_LEVELS:
            raise InvalidInputError(f"cascades are certified at {' or '.join(PROVED_LEVELS)}, got {rounding!r}")
        self.gates = tuple(gates)
        self.members = [
            MemberChecks(member, gate, rounding, input_shape)
            for member, gate in zip(members, [*gates, None], strict=True)
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
                opens = least_margins(member.outer, x, y, sum_up(e, member.gate.expand_as(e))) > 0
                blocked[todo] = opens
            held[todo] = keeps
        return held

    def _keeps(self, member: MemberChecks, x: Tensor, y: Tensor, same: Tensor, eps: Tensor) -> Tensor:
        """t_k >= eps, of images x with labels y_k; `same`: y_k is the answer."""
        keeps, sure = torch.zeros_like(same), torch.zeros_like(same)
        asked = same if member.gate is None else torch.ones_like(same)  # the last member counts where it agrees
        sure[asked] = least_margins(member.inner, x[asked], y[asked], torch.zeros_like(eps[asked])) > 0
        check = same & sure
        if member.gate is not None:
            keeps |= check & (eps <= member.gate)
            check &= eps > member.gate
        keeps[check] = least_margins(member.inner, x[check], y[check], eps[check]) > 0
        if member.gate is not None:
            fails_at = difference_down(member.gate.expand_as(eps), eps)
            check = ~same & sure & (fails_at >= 0)
            margins = least_margins(member.inner, x[check], y[check], fails_at[check])
            keeps[check] = (margins <= 0) & torch.isfinite(margins)
        return keeps

    @torch.no_grad()
    def may_answer(self, images: Tensor, answers: Tensor, route: Tensor) -> Tensor:
        """[N] bool: whether member `route` (int64 [N]) may be the one that says `answers`, in some order of summation.

        By nesting, a gate whose P_25 passes here is open in every evaluation, one whose P_1 fails here is open in none.
        """
        possible = (route >= 0) & (route < len(self.members))
        for k, member in enumerate(self.members[:-1]):
            gate = torch.full((len(images),), self.gates[k], dtype=torch.float64)
            passed = (possible & (route > k)).nonzero().flatten()
            if len(passed):
                x = images[passed]
                possible[passed] = ~(least_margins(member.outer, x, member.labels(x), gate[passed]) > 0)
            here = (possible & (route == k)).nonzero().flatten()
            possible[here] = least_margins(member.inner, images[here], answers[here], gate[here]) > 0
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
    """Certifies batches for `acert_zoo.certify`; see `acert_zoo.bounds.certifier.Certifier`.

    Args:
        answer: the cascade's own answers to images [N, C, H, W].
        prover: its checks.
        rounding: the level of `prover`.
        input_shape, num_classes, network_sha256: the cascade's.
    """

    def __init__(
        self,
        answer: Callable[[Tensor], Answer],
        prover: CascadeProver,
        *,
        rounding: str,
        input_shape: tuple[int, int, int] | None,
        num_classes: int,
        network_sha256: str,
    ) -> None:
        self.answer, self.prover, self.rounding = answer, prover, rounding
        self.input_shape, self.num_classes, self.network_sha256 = input_shape, num_classes, network_sha256

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None) -> BatchCertificates:
        answer = self.answer(images)
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
