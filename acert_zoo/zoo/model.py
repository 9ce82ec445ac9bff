"""`AcertModel`, the module that a checkpoint becomes, and how it is made of the verified file.

Loading never runs code that came with the weights: the record names one of this package's architectures, its sizes are
checked, the network is laid out without memory, and only then do the tensors of the verified file take their places.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acert_zoo._files import write_atomically
from acert_zoo.bounds.certified_prediction import predict_certified
from acert_zoo.bounds.network_certifier import NetworkCertifier
from acert_zoo.errors import (
    InvalidInputError,
    MissingDependencyError,
    WeightsError,
)
from acert_zoo.network.reading import read
from acert_zoo.network.torch_defaults import under_standard_defaults
from acert_zoo.network.torch_modules.known_layers import wrapper
from acert_zoo.rounding import BoundMethod, RoundingLevel
from acert_zoo.zoo import resolve, weights
from acert_zoo.zoo.download import DownloadOptions
from acert_zoo.zoo.expected_logits import check_expected_logits, compute_expected_logits
from acert_zoo.zoo.meta_network import check_tensors, network_without_weights
from acert_zoo.zoo.model_info import ModelInfo


@wrapper("classifier")
class AcertModel(nn.Module):
    """A classifier of the zoo: raw pixels [N, C, H, W] in [0, 1] in, logits [N, K] out; normalisation is inside.

    Attributes:
        classifier: the architecture's module, BatchNorm folded; bounds are computed on it.
        info: the record of the checkpoint, or None for a network of one's own.

    Args:
        classifier: a module of `acert_zoo.network.architectures`.
        info: needed for saving; its `arch` and `arch_kwargs` rebuild `classifier`.
        metadata: strings that the weights file carries (kept, so that saving gives the same bytes again).
    """

    def __init__(
        self, classifier: nn.Module, info: ModelInfo | None = None, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.info = info
        self.metadata = dict(metadata or {})
        self._loaded_digest: str | None = None

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images)
        return logits

    def __repr__(self) -> str:
        name = repr(self.info.versioned_name) if self.info is not None else type(self.classifier).__name__
        return f"AcertModel({name}, {tuple(self.input_shape)} -> {self.num_classes}, {self._parameters_text()})"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>" if self.info is None else self.info._repr_html_()

    def _parameters_text(self) -> str:
        return f"{sum(p.numel() for p in self.classifier.parameters()):,} parameters"

    @property
    def layers(self) -> nn.Module:
        """The layers that bounds are computed on."""
        return self.classifier.layers if hasattr(self.classifier, "layers") else self.classifier  # type: ignore[return-value]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return tuple(self.classifier.input_shape)  # type: ignore[arg-type,return-value]

    @property
    def num_classes(self) -> int:
        """The number of logits K."""
        return self.classifier.num_classes  # type: ignore[return-value]

    @property
    def weights_sha256(self) -> str:
        """sha256 of the weights file: of the loaded one while the weights are as loaded, else of the one
        `save_pretrained` would write now."""
        digest = weights.sha256_of(self.classifier.state_dict(), self.metadata)
        unchanged = digest == self._loaded_digest and self.info is not None and self.info.sha256 is not None
        return self.info.sha256 if unchanged else digest  # type: ignore[union-attr,return-value]

    def certifier(
        self,
        *,
        method: str = BoundMethod.IBP,
        rounding: str = RoundingLevel.REAL_SOUND,
        budget: float | None = None,
        device: torch.device | None = None,
    ) -> NetworkCertifier:
        """What `acert_zoo.certify` uses for this model."""
        reading = read(self, self.input_shape)
        return NetworkCertifier(reading.network, self.input_shape, method, rounding, budget, reading.agreement, device)

    def predict_certified(self, images: Tensor, eps: str | float | Fraction) -> Any:
        """Labels with the guarantee that they do not change within `eps`; see
        `acert_zoo.bounds.certified_prediction.predict_certified`."""
        return predict_certified(self, images, eps)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        progress: bool = True,
    ) -> AcertModel:
        """The model in a Hub repository ("owner/repo"), in a folder that `save_pretrained` wrote, or of the registry.

        Like `PyTorchModelHubMixin.from_pretrained`, but strict: the digest is checked before anything is parsed, every
        tensor must be expected and there, and pickled weights are refused. Arguments and errors are `load_model`'s.
        """
        text = os.fspath(name)
        if text.count("/") == 1 and not os.path.exists(text) and not text.startswith((resolve.HUB_PREFIX, ".", "/")):
            text = resolve.HUB_PREFIX + text
        options = DownloadOptions(cache_dir, local_files_only, force_download, token, progress)
        located = resolve.locate(text, revision, options)
        if located.info.kind != "model":
            raise WeightsError(f"{text} is a {located.info.kind}: load it with acert_zoo.load_model")
        return assemble(located)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Writes config.json, model.safetensors and, where there is none, a short README.md into `directory`.

        Unchanged weights give the same bytes as they were loaded from; changed ones lose the metrics of the record.

        Raises:
            InvalidInputError: `info` is None or does not describe this network, or the weights are not finite float32.
            OSError: the folder cannot be made or written.
        """
        if self.info is None:
            raise InvalidInputError("saving needs the model's record: AcertModel(classifier, ModelInfo(...))")
        state = self.classifier.state_dict()
        check_tensors(network_without_weights(self.info, InvalidInputError), state, "the network", InvalidInputError)
        info, metadata = self.info, self.metadata
        if self.weights_sha256 != info.sha256:
            training = self.training
            expected = compute_expected_logits(self.eval(), self.input_shape)
            self.train(training)
            info = replace(info, expected_logits=expected, metrics=(), hub=None, sha256=None, size=None)
            info = replace(info, parameters=sum(p.numel() for p in self.classifier.parameters()), file=None)
            metadata = {**metadata, "config": json.dumps(json.loads(resolve.format_config(info)))}
        content = weights.serialize(state, metadata)
        info = replace(info, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / resolve.WEIGHTS_NAME, content)
        write_atomically(folder / resolve.CONFIG_NAME, resolve.format_config(info).encode())
        if not (folder / "README.md").exists():
            write_atomically(folder / "README.md", _short_card(info).encode())

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model with acert-zoo",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
    ) -> str:
        """Creates the Hub repository where needed and uploads `save_pretrained`'s files in one commit; returns its URL.

        A README.md that the repository has already is kept.
        """
        try:
            from huggingface_hub import CommitOperationAdd, HfApi
        except ImportError as error:
            raise MissingDependencyError("push_to_hub needs huggingface_hub: pip install huggingface_hub") from error
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api = HfApi(token=token, library_name="acert-zoo")
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            card = Path(folder) / "README.md"
            card.write_text(card.read_text(encoding="utf-8").replace("OWNER/REPOSITORY", repo_id), encoding="utf-8")
            keep = {"README.md"} if api.file_exists(repo_id, "README.md", revision=branch) else set()
            files = [path for path in sorted(Path(folder).iterdir()) if path.name not in keep]
            commit = api.create_commit(
                repo_id,
                [CommitOperationAdd(path.name, path) for path in files],
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
            )
        return str(commit)


@under_standard_defaults
def assemble(located: resolve.Located) -> AcertModel:
    """The model whose verified file `located` holds, in eval mode.

    Raises:
        UnknownNameError, WeightsError: see `acert_zoo.load_model`.
    """
    info, source = located.info, str(located.path)
    classifier = network_without_weights(info, WeightsError)
    tensors = weights.read_tensors(located.content, source)
    check_tensors(classifier, tensors, source, WeightsError)
    classifier.load_state_dict(tensors, strict=True, assign=True)
    model = AcertModel(classifier, info, weights.read_metadata(located.content, source)).eval()
    # The file's own digest, unless another program has written it, with the tensors in another order, say.
    ours = weights.serialize(tensors, model.metadata) == located.content
    model._loaded_digest = info.sha256 if ours else weights.sha256_of(tensors, model.metadata)
    if info.expected_logits is not None:
        check_expected_logits(model, model.input_shape, info.expected_logits, source)
    return model


def _short_card(info: ModelInfo) -> str:
    """A README.md that says what the files are; published checkpoints bring a full model card instead."""
    tags = "license: apache-2.0\n" if info.license == "Apache-2.0" else ""
    return f"""---
{tags}library_name: acert-zoo
pipeline_tag: image-classification
tags:
- certified-robustness
- acert-zoo
---
# {info.name}

An image classifier with certified l-inf robustness.

```python
import acert_zoo

model = acert_zoo.load_model("hf-hub:OWNER/REPOSITORY")
images, labels = acert_zoo.sample_data("{info.dataset or "cifar10"}")
print(acert_zoo.certify(model, images, labels).acr)
```
"""
