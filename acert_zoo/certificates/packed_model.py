"""A model on its way to another process: of the zoo's models the bytes of their files, never pickled modules.

What was loaded from a file travels as that file's content (safetensors and JSON) and is assembled there by the same
checks as here. A module that the caller has built in Python has no such file: it travels as the object that it is, by
the pickling of the engine, from one process of the caller's to another.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from acert_zoo.cascades.cascade import Cascade
from acert_zoo.zoo import resolve, weights
from acert_zoo.zoo.model import AcertModel, assemble
from acert_zoo.zoo.model_info import ModelInfo

_WHERE = Path("a packed model")


@dataclass(frozen=True)
class PackedModel:
    """One of: a model file and its record; the members and gates of a cascade; a module.

    Attributes:
        config, content: config.json and the safetensors file.
    """

    config: str | None = None
    content: bytes = b""
    members: tuple[PackedModel, ...] = ()
    gates: tuple[str, ...] = ()
    info: ModelInfo | None = None
    module: nn.Module | None = None

    @classmethod
    def of(cls, model: nn.Module) -> PackedModel:
        """Packs a model that is in eval mode."""
        if type(model) is Cascade:
            return cls(members=tuple(map(cls.of, model.members)), gates=model.gate_texts, info=model.info)
        if type(model) is AcertModel and model.info is not None:
            content = weights.serialize(model.classifier.state_dict(), model.metadata)
            info = model.info
            if info.sha256 != model.weights_sha256:  # changed since it was loaded: other logits are to be expected
                info = dataclasses.replace(info, expected_logits=None)
            return cls(config=resolve.format_config(info), content=content)
        return cls(module=model)

    def unpack(self) -> nn.Module:
        """The model, in eval mode.

        Raises:
            WeightsError: the content is not what the record says.
        """
        if self.members:
            cascade = Cascade([member.unpack() for member in self.members], self.gates).eval()
            cascade.info = self.info
            return cascade
        if self.config is not None:
            info = resolve.parse_config(self.config, str(_WHERE), digest_needed=False)
            return assemble(resolve.Located(info, self.content, _WHERE))
        assert self.module is not None
        return self.module
