"""ANYWHERE. A model folder: what it holds, how it is written and verified before anything in it is used.

    weights.safetensors    the tensors
    model.json             architecture (name and options, factory, or program), schema, fitted features, label
    manifest.json          size and sha256 of each of them; written last

No file of it is ever run or unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pipeline import storage
from pipeline.config.training import ModelConfig
from pipeline.dataset import DatasetSchema, schema_from_json
from pipeline.errors import StorageError

_DESCRIPTION_FORMAT = ("model", 1)
_MANIFEST_FORMAT = ("model-manifest", 1)
_FILES = ("weights.safetensors", "model.json")


@dataclass(frozen=True)
class ModelDescription:
    """All of a model but its weights, as plain data.

    Attributes:
        architecture: a built-in name or a factory, with options; empty where ``program`` stands for it.
        program: the traced operations of a model of the user's, see `pipeline.inference.program`.
        features: the fitted features and the label's state, as in the dataset's manifest.
        dataset: content id of the dataset that it was trained on.
        source: of a factory, the sha256 of its module's source as it was in training.
    """

    architecture: ModelConfig
    program: dict[str, Any] | None
    schema: DatasetSchema
    features: Mapping[str, Any]
    dataset: str
    source: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "architecture": self.architecture.model_dump(mode="json"),
            "program": self.program,
            "schema": dataclasses.asdict(self.schema),
            "features": dict(self.features),
            "dataset": self.dataset,
            **({} if self.source is None else {"source": self.source}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelDescription:
        """The description that `to_json` gave."""
        return cls(
            architecture=ModelConfig.model_validate(value["architecture"]),
            program=value["program"],
            schema=schema_from_json(value["schema"]),
            features=value["features"],
            dataset=value["dataset"],
            source=value.get("source"),
        )


def write_model_folder(
    folder: str,
    description: ModelDescription,
    weights: Mapping[str, Tensor],
    made_with: Mapping[str, str] | None = None,
) -> str:
    """Write a model folder, its manifest last; returns the model's digest.

    The same model gives the same digest: no paths, times or hosts are in it, nor what it was ``made_with``.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    files = {
        "weights.safetensors": safetensors.torch.save(tensors),
        "model.json": storage.format_json(*_DESCRIPTION_FORMAT, description.to_json()),
    }
    for name, data in files.items():
        storage.write_bytes(storage.join(folder, name), data)
    digests = {name: _digest(data) for name, data in files.items()}
    values = {name: dataclasses.asdict(digest) for name, digest in digests.items()}
    manifest = {"files": values, "made_with": dict(made_with or {})}
    storage.write_json(storage.join(folder, "manifest.json"), *_MANIFEST_FORMAT, manifest)
    return model_digest(digests)


def _digest(data: bytes) -> storage.Digest:
    return storage.Digest(len(data), zlib.crc32(data), hashlib.sha256(data).hexdigest())


def model_digest(files: Mapping[str, storage.Digest]) -> str:
    """The sha256 that names a model: over the names and contents of its files."""
    return storage.sha256_of({name: digest.sha256 for name, digest in files.items()})


def read_manifest(folder: str) -> dict[str, storage.Digest]:
    """File name -> digest, as the manifest says."""
    url = storage.join(folder, "manifest.json")
    try:
        value = storage.read_json(url, *_MANIFEST_FORMAT)["files"]
        return {name: storage.Digest(**value[name]) for name in _FILES}
    except (KeyError, TypeError) as error:
        raise StorageError(f"{url} is corrupt; expected the digests of {' and '.join(_FILES)}") from error


def read_model_folder(folder: str) -> tuple[ModelDescription, dict[str, Tensor], str]:
    """Read and verify a model folder: description, weights, digest.

    Every byte that is used has been compared with its sha256 first.

    Raises:
        StorageError: a file is missing, corrupt, or of another version.
    """
    files = read_manifest(folder)
    contents: dict[str, bytes] = {}
    offences = []
    for name, digest in files.items():
        url = storage.join(folder, name)
        contents[name] = storage.read_bytes(url)
        actual = _digest(contents[name])
        if actual != digest:
            offences.append(
                f"{url} is corrupt: its sha256 is {actual.sha256}; expected {digest.sha256}; restore the file"
            )
    if offences:
        raise StorageError(*offences)
    value = storage.parse_json(storage.join(folder, "model.json"), contents["model.json"], *_DESCRIPTION_FORMAT)
    try:
        description = ModelDescription.from_json(value)
        weights = safetensors.torch.load(contents["weights.safetensors"])
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise StorageError(f"{folder} is not a model folder: {error}; expected one that training wrote") from error
    return description, weights, model_digest(files)
