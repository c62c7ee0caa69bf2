"""DRIVER. Which weights `training.init_from` means: found once, before Spark starts, and then the same for ever.

A run folder remembers what a reference stood for when its training began, so that an alias which has moved since, or a
folder that is gone, changes nothing about a training that goes on.
"""

from __future__ import annotations

import re
import tempfile

from pipeline import storage
from pipeline.config import PipelineConfig
from pipeline.errors import InputMissingError
from pipeline.run_folder import MODEL, REGISTERED, RunFolder

_REGISTERED = re.compile(r"models:/([^/@]+)[/@]([^/@]+)")
_WEIGHTS = ("weights.safetensors", "model.safetensors")


def with_starting_point(config: PipelineConfig, kept: str | None = None) -> PipelineConfig:
    """The configuration with the url of a checkpoint or model folder for `training.init_from`, whatever it names.

    Args:
        config: with any reference, or none.
        kept: where a registered model is copied to; by default into the run folder, where every rank can read it.

    Raises:
        InputMissingError: there is no such model.
        ServiceError: the registry is not reachable, or has no such model.
    """
    reference = config.training.init_from
    if reference is None:
        return config
    url = RunFolder(config.training.run_url).started_from(reference) or _found(config, reference, kept)
    return config.model_copy(update={"training": config.training.model_copy(update={"init_from": url})})


def _found(config: PipelineConfig, reference: str, kept: str | None) -> str:
    if (match := _REGISTERED.fullmatch(reference)) is not None:
        return _registered(config, match[1], match[2], kept or storage.join(config.training.run_url, REGISTERED))
    for folder in (reference, storage.join(reference, MODEL)):
        names = storage.list_names(folder)
        if "manifest.json" in names and any(name in names for name in _WEIGHTS):
            return folder
    from pipeline.training.checkpoint import published_steps, step_url

    if steps := published_steps(reference):
        return step_url(reference, steps[-1])
    raise InputMissingError(
        f"training.init_from is {reference}, where no model is; expected a model folder, a run folder, a checkpoint, "
        "or models:/<name>@<alias> or models:/<name>/<version> of the registry"
    )


def _registered(config: PipelineConfig, name: str, version: str, kept: str) -> str:
    from pipeline.tracking import load_registered, tracking_uri
    from pipeline.tracking.registry import copy_model

    uri = tracking_uri(config.tracking, config.training.run_url)
    if storage.is_local(kept):
        return load_registered(uri, name, version, kept)
    with tempfile.TemporaryDirectory() as local:
        folder = load_registered(uri, name, version, local)
        return copy_model(folder, storage.join(kept, folder.rsplit("/", 1)[-1]))
