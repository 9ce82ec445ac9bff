"""State dicts of CNN-7 networks as other certified-training code bases store them, renamed to this zoo's keys.

What such files hold is the same network under other names. Three things vary, and the key map undoes each:

| stored as | means | becomes |
|---|---|---|
| `state_dict`, `model`, `net`, ... holding the tensors | a training checkpoint around the weights | its content |
| `n_averaged` beside the weights | how many were averaged (`AveragedModel`) | dropped |
| `module.`, `model.`, `net.`, `_orig_mod.` before every key | DataParallel, wrappers, torch.compile | dropped |
| `blocks.layers.N.x`, `layers.N.x`, `blocks.N.x`, `N.x` | a chain of layers, each keyed by its number | by order |
| `layers.N.weight` / `N.weight.ori_...`, `/N.param` ... | a bound module's copy of a parameter | by order |
| `normalizer.mean`, `normalization.sigma`, `.std`, `blocks.layers.0.mean` | input normalisation | mean, std |

Layers are matched *by order and shape*, never by number: other code bases count ReLU and Flatten differently. Every
tensor of the file must find its place and every place its tensor; anything else is an error that lists the keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo.errors import WeightsError

_CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "network", "params")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
_COUNTERS = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel: no weight
_PARAMETERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_NORMALIZATION = {"mean": "mean", "mu": "mean", "std": "std", "sigma": "std"}
_LAYER = re.compile(r"^(?:.*?[./])?(\d+)[./]([a-z_]+)$")


def unwrap_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, out of whatever dictionary they are kept in, without common prefixes.

    Raises:
        WeightsError: there are no tensors in it.
    """
    found: Any = checkpoint
    # A container wins over tensors beside it: training scripts keep best accuracies and generator states there.
    while inner := next((found[k] for k in _CONTAINERS if _holds_tensors(found.get(k))), None):
        found = inner
    state = {str(k): v for k, v in found.items() if isinstance(v, Tensor) and k not in _COUNTERS}
    if not state:
        raise WeightsError(f"no tensors in this checkpoint; its keys are {sorted(map(str, found))[:10]}")
    while state:
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None)
        if prefix is None:
            break
        state = {k[len(prefix) :]: v for k, v in state.items()}
    return state


def _holds_tensors(value: Any, depth: int = 8) -> bool:
    """Whether tensors lie in a dictionary, or in one of the containers in it."""
    if not isinstance(value, Mapping) or not depth:
        return False
    inner = (value.get(key) for key in _CONTAINERS)
    return any(isinstance(v, Tensor) for v in value.values()) or any(_holds_tensors(v, depth - 1) for v in inner)


def convert_state_dict(checkpoint: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The checkpoint's tensors under the keys of `model.state_dict()`.

    Args:
        checkpoint: what `torch.load(..., weights_only=True)` or safetensors gave.
        model: the zoo's architecture that the file is for (`architectures.build("cnn7", ..., batchnorm=True)`).

    Returns:
        A state dict for `model.load_state_dict(..., strict=True)`. Normalisation constants that the file does not
        hold stay those of `model`.

    Raises:
        WeightsError: layers of another number, kind or shape; the message lists what did not fit.
    """
    state = unwrap_checkpoint(checkpoint)
    own = model.state_dict()
    if set(state) == set(own) and all(state[k].shape == own[k].shape for k in own):
        return dict(state)
    stored, normalization, unknown = _stored_layers(state)
    if unknown:
        raise WeightsError(f"keys of the checkpoint that belong to no layer: {', '.join(unknown)}")
    wanted = _own_layers(model)
    result = {}
    for position, (name, layer) in enumerate(wanted):
        if position >= len(stored):
            raise WeightsError(f"the checkpoint has {len(stored)} layers with parameters, the network {len(wanted)}")
        source, tensors = stored[position]
        for key, own_tensor in layer.items():
            tensor = tensors.pop(key, None)
            if tensor is None and key == "num_batches_tracked":
                tensor = own_tensor.clone()
            if tensor is None and key == "bias":
                tensor = torch.zeros_like(own_tensor)
            if tensor is None or tensor.shape != own_tensor.shape:
                got = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
                raise WeightsError(
                    f"layer {source!r} of the checkpoint against {name!r} of the network: {key} must have shape "
                    f"{tuple(own_tensor.shape)}, the checkpoint has {got}"
                )
            result[f"{name}.{key}"] = tensor.detach().to(own_tensor.dtype).clone()
        if tensors:
            raise WeightsError(f"layer {source!r} of the checkpoint has {', '.join(tensors)}, which {name!r} has not")
    if len(stored) > len(wanted):
        raise WeightsError(f"the checkpoint has {len(stored)} layers with parameters, the network {len(wanted)}")
    for key, own_tensor in own.items():
        if key not in result:  # the buffers of Normalize
            tensor = normalization.get(key.rsplit(".", 1)[-1])
            result[key] = own_tensor.clone() if tensor is None else tensor.reshape(-1).expand_as(own_tensor).clone()
    return {key: result[key] for key in own}


def _stored_layers(
    state: Mapping[str, Tensor],
) -> tuple[list[tuple[str, dict[str, Tensor]]], dict[str, Tensor], list[str]]:
    """(layers with parameters in order, normalisation constants, keys that are neither)."""
    layers: dict[str, dict[str, Tensor]] = {}
    normalization: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in state.items():
        last = re.split(r"[./]", key)[-1]
        if last in _NORMALIZATION:
            normalization[_NORMALIZATION[last]] = tensor
        elif last in _PARAMETERS and _LAYER.match(key):
            layers.setdefault(key[: -len(last) - 1], {})[last] = tensor
        else:
            unknown.append(key)

    def position(name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in re.findall(r"\d+", name))

    return sorted(layers.items(), key=lambda item: position(item[0])), normalization, unknown


def _own_layers(model: nn.Module) -> list[tuple[str, dict[str, Tensor]]]:
    """The network's layers with parameters, in order of execution."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)):
            found.append((name, dict(module.state_dict())))
    return found
