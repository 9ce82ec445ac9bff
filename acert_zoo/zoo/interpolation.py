"""Models between two of a family: the average of their weights, for a kappa that nobody trained.

Along a path of models that were trained one from another, the weights' averages lie on the path's trade-off curve to
within a point (docs/training.md has the measured curves, and where this fails). Nothing of that is assumed: an average
is a network like any other, and `acert_zoo.certify` speaks of the weights it is given.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor, nn

from acert_zoo.errors import InvalidInputError, UnknownNameError, WeightsError
from acert_zoo.zoo import registry, weights
from acert_zoo.zoo.model import AcertModel
from acert_zoo.zoo.model_info import ModelInfo


def interpolate(a: AcertModel, b: AcertModel, share: float) -> AcertModel:
    """The model whose weights are (1 - share) a + share b, in eval mode; `a` and `b` stay as they are.

    The average is taken in float64 and rounded to float32 once; share 0 gives the weights of `a`, 1 those of `b`, bit
    for bit. Its record has kappa between those of `a` and `b` and no metrics: none were measured. `save_pretrained`
    stores it, so that certificates can name it.

    Args:
        a, b: two models of one family: same data set, objective, eps_max, architecture and sizes.
        share: of `b`, in [0, 1].

    Raises:
        InvalidInputError: the share is no number in [0, 1], a model is of no record or is not of the other's family.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise InvalidInputError(f"share = {share!r}; expected a number in [0, 1]")
    first, second = _record(a), _record(b)
    for field in ("dataset", "method", "eps_max", "arch", "arch_kwargs"):
        mine, other = getattr(first, field), getattr(second, field)
        if mine != other:
            raise InvalidInputError(
                f"{first.versioned_name} and {second.versioned_name} are not of one family: {field} is {mine!r} and "
                f"{other!r}; weights are averaged within a family only"
            )
    classifier = copy.deepcopy(a.classifier)
    tensors = _average(a.classifier, b.classifier, float(share))
    classifier.load_state_dict(tensors, strict=True, assign=True)
    kappa = None
    if first.kappa is not None and second.kappa is not None:
        kappa = (1 - share) * first.kappa + share * second.kappa
    info = ModelInfo(
        name=f"{_family(first)}_interpolated",
        arch=first.arch,
        arch_kwargs=first.arch_kwargs,
        dataset=first.dataset,
        method=first.method,
        kappa=kappa,
        eps_max=first.eps_max,
        parameters=first.parameters,
        recipe={"interpolate": [first.versioned_name, second.versioned_name], "share": share},
        license=first.license if first.license == second.license else None,
    )
    return AcertModel(classifier, replace(info, sha256=weights.sha256_of(tensors, {}))).eval()


def neighbours(family: str, kappa: float) -> tuple[ModelInfo, ModelInfo, float]:
    """The registered models FAMILY_kappa... next below and next above `kappa`, and the share of the second.

    Args:
        family: what stands before "_kappa" in the models' names: "cifar10", "cifar10_ibp", "cifar10_eps3", ...
        kappa: a number in [0, 1]; at a registered value both are that model.

    Raises:
        InvalidInputError: kappa is no number in [0, 1], or lies outside the family's values.
        UnknownNameError: there is no such family.
    """
    if isinstance(kappa, bool) or not isinstance(kappa, (int, float)) or not 0 <= kappa <= 1:
        raise InvalidInputError(f"kappa = {kappa!r}; expected a number in [0, 1]")
    families: dict[str, dict[float, ModelInfo]] = {}
    for name in registry.list_models():
        info = registry.model_info(name)
        if info.kind == "model" and info.kappa is not None and "_kappa" in info.name:
            families.setdefault(_family(info), {})[float(info.kappa)] = info
    if family not in families:
        raise UnknownNameError.near("family of models", family, families)
    members = families[family]
    below = [k for k in members if k <= kappa]
    above = [k for k in members if k >= kappa]
    if not below or not above:
        values = ", ".join(f"{k:g}" for k in sorted(members))
        raise InvalidInputError(f"kappa = {kappa!r} lies outside the {family} models, whose kappas are {values}")
    low, high = max(below), min(above)
    return members[low], members[high], 0.0 if low == high else (kappa - low) / (high - low)


def _family(info: ModelInfo) -> str:
    return info.name.partition("_kappa")[0]


def _record(model: object) -> ModelInfo:
    if not isinstance(model, AcertModel):
        raise InvalidInputError(f"only models of the zoo are interpolated, got a {type(model).__name__}")
    if model.info is None:
        raise InvalidInputError("only models with a record are interpolated: AcertModel(classifier, ModelInfo(...))")
    return model.info


def _average(a: nn.Module, b: nn.Module, share: float) -> dict[str, Tensor]:
    """Name -> tensor of the averaged weights."""
    mine, other = a.state_dict(), b.state_dict()
    if {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in other.items()}:
        raise InvalidInputError("the two models' tensors differ in name or shape")
    result = {}
    for name, x in mine.items():
        y = other[name]
        if not x.is_floating_point():
            if not bool((x == y).all()):
                raise InvalidInputError(f"{name} holds {x.dtype} values, which differ and have no average")
            result[name] = x.clone()
            continue
        z = (x if share == 0 else y if share == 1 else x.double().lerp(y.double(), share)).to(x.dtype, copy=True)
        if not bool(z.isfinite().all()):
            raise WeightsError(f"the average of {name} is not finite")
        result[name] = z
    return result
