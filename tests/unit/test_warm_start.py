"""The weights that a training starts from are read as the predictor reads them: verified, and of a known format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.training import ModelConfig
from pipeline.errors import StorageError
from pipeline.models import build_model
from pipeline.training.warm_start import fitting_tensors
from tests.small_model import small_dataset, small_model, small_schema


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    dataset = small_dataset(str(tmp_path_factory.mktemp("data")), 400)
    return small_model(str(tmp_path_factory.mktemp("model")), dataset, "linear", steps=2)


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        value = json.loads((folder / "manifest.json").read_text())
        change(value)
        (folder / "manifest.json").write_text(json.dumps(value))

    return rewrite


def flipped(name: str) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return flip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: None, None),
        (flipped("weights.safetensors"), r"weights\.safetensors is corrupt"),
        (flipped("model.json"), r"model\.json is corrupt"),
        (rewritten(lambda value: value.update(format="model-manifest/9")), r"has format model-manifest/9; expected"),
        (rewritten(lambda value: value.pop("files")), r"manifest\.json is corrupt; expected the digests"),
        (lambda folder: (folder / "manifest.json").write_text("no JSON"), "is not a model-manifest file"),
    ],
    ids=["intact", "weights", "description", "a newer format", "no digests", "no JSON"],
)
def test_a_model_folder_is_verified_before_its_weights_are_a_start(
    folder: str, tmp_path: Path, damage: Callable[[Path], Any], message: str | None
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    damage(tmp_path / "model")
    model = build_model(ModelConfig(name="linear"), small_schema())
    if message is None:
        assert set(fitting_tensors(model, str(tmp_path / "model"))) == set(model.state_dict())
        return
    with pytest.raises(StorageError, match=message):
        fitting_tensors(model, str(tmp_path / "model"))
