"""DRIVER. Which model folder a user means: a folder, a run, a configuration, or a registered model."""

from __future__ import annotations

from pipeline import storage
from pipeline.config import PipelineConfig, load_config
from pipeline.errors import InputMissingError
from pipeline.run_folder import MODEL, REGISTERED


def model_folder(reference: str | None, config: PipelineConfig | None = None) -> str:
    """Find the model folder.

    Args:
        reference: a model folder, a run folder, the path of a configuration, or ``name@alias`` or ``name@version``
            of the registry that ``config`` names; by default the registered model of ``config``, or the model of
            its run if it registers none.
        config: the configuration.

    Raises:
        InputMissingError: there is no such model.
        ServiceError: the registry is not reachable.
    """
    if reference is not None:
        for folder in (reference, storage.join(reference, MODEL)):
            if storage.exists(storage.join(folder, "manifest.json")) and storage.exists(
                storage.join(folder, "weights.safetensors")
            ):
                return folder
        if reference.endswith((".yaml", ".yml")):
            return model_folder(None, load_config(reference))
        if config is None or "@" not in reference:
            raise InputMissingError(
                f"{reference} is no model; expected a model folder, a run folder or a configuration; check the path"
            )
    elif config is None:
        raise InputMissingError("no model is named; expected a model folder, a run folder or a configuration")
    return _configured_model(reference, config)


def _configured_model(reference: str | None, config: PipelineConfig) -> str:
    name, _, version = (reference or "").partition("@")
    name = name or config.tracking.registered_model or ""
    if not name:
        return _model_of_run(config.training.run_url)
    from pipeline.tracking import load_registered, tracking_uri

    run_url = config.training.run_url
    cache = storage.join(run_url, REGISTERED) if storage.is_local(run_url) else "registered-models"
    return load_registered(tracking_uri(config.tracking, run_url), name, version or config.tracking.alias, cache)


def _model_of_run(run_url: str) -> str:
    folder = storage.join(run_url, MODEL)
    if not storage.exists(storage.join(folder, "manifest.json")):
        raise InputMissingError(f"{run_url} holds no model; expected a finished training; run `pipeline run` first")
    return folder
