"""DRIVER. The MLflow model registry: put a model folder in as a model version, and get it out again.

The registered model is our model folder beside a fixed entry file of a few lines, so that ``mlflow models serve``
and ``spark_udf`` give the very answers of our own scoring and serving. Nothing in it is a pickle.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline import storage
from pipeline.config.release import TrackingConfig
from pipeline.errors import ConfigError, InputMissingError, ServiceError
from pipeline.inference import mlflow_entry_path
from pipeline.inference.predictor import Predictor
from pipeline.run_folder import MODEL
from pipeline.tracking.store import Store, mlflow_errors, mlflow_name

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

logger = logging.getLogger(__name__)

_DIGEST_TAG = "model_sha256"
_PREDICTOR_NEEDS = ("fsspec", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "torch")
_TYPES = {"number": "double", "string": "string", "boolean": "boolean", "timestamp": "datetime"}


def register_model(
    config: TrackingConfig,
    run_url: str,
    metrics: Mapping[str, float] | None = None,
    allow_factories: tuple[str, ...] = (),
) -> str:
    """Register the model folder of a run and move the alias to it.

    A model that is registered already, by its content, is not registered twice; the alias is set last, so that
    whoever asks for it never gets half a model.

    Args:
        config: names the registered model and the alias.
        run_url: the run folder.
        metrics: of the test split, shown with the version.
        allow_factories: see `pipeline.inference.predictor.Predictor.load`.

    Returns:
        The version.

    Raises:
        ServiceError: MLflow is not reachable; the same command goes on where this one stopped.
        StorageError: the model folder is corrupt.
    """
    name = config.registered_model
    if name is None:
        raise ConfigError("tracking.registered_model is missing; expected a name; add it to the configuration")
    predictor = Predictor.load(storage.join(run_url, MODEL), allow_factories)
    store = Store(config, run_url)
    with mlflow_errors(store.uri):
        version = _version_of(store, name, predictor.digest)
        if version is None:
            version = _create_version(store, name, predictor)
        for metric, value in (metrics or {}).items():
            store.client.set_model_version_tag(name, version, mlflow_name(f"test_{metric}"), f"{value:.6g}")
        store.client.set_registered_model_alias(name, config.alias, version)
    logger.info("register: %s version %s is now %s", name, version, config.alias)
    return version


def _version_of(store: Store, name: str, digest: str) -> str | None:
    found = [v for v in store.client.search_model_versions(f"name = '{name}'") if v.tags.get(_DIGEST_TAG) == digest]
    return str(found[0].version) if found else None


def _create_version(store: Store, name: str, predictor: Predictor) -> str:
    from mlflow.exceptions import MlflowException

    run_id, new = store.find_or_create_run()
    if new:
        store.end_run(run_id, "FINISHED")
    with tempfile.TemporaryDirectory() as folder:
        _save(predictor, Path(folder) / "model")
        store.client.log_artifacts(run_id, str(Path(folder) / "model"), "model")
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"{store.client.get_run(run_id).info.artifact_uri}/model"
    tags = {_DIGEST_TAG: predictor.digest, "dataset": predictor.dataset}
    return str(store.client.create_model_version(name, source, run_id, tags=tags).version)


def _save(predictor: Predictor, folder: Path) -> None:
    """Write MLflow's own folder: our model folder as an artifact, the entry file, signature and requirements."""
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as local, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to give type hints and an example, which a fixed signature replaces
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(mlflow_entry_path()),
            artifacts={"model": copy_model(predictor.source.folder, f"{local}/model")},
            signature=_signature(predictor),
            code_paths=[_own_code(local)],
            pip_requirements=_requirements(),
        )


def _own_code(folder: str) -> str:
    """A copy of this package's sources, which go with a model: MLflow's environments could not get it by its name."""
    ignored = shutil.ignore_patterns("__pycache__")
    return str(shutil.copytree(Path(pipeline.__file__).parent, Path(folder) / "code" / "pipeline", ignore=ignored))


def _requirements() -> list[str]:
    """The distributions that a predictor imports, as installed here; of torch any build of that version."""
    return [f"{name}=={version_of(name).partition('+')[0]}" for name in _PREDICTOR_NEEDS]


def copy_model(source: str, folder: str) -> str:
    """Copy a model folder from wherever it lies to a local folder; returns that."""
    for name in storage.list_names(source):
        storage.write_bytes(storage.join(folder, name), storage.read_bytes(storage.join(source, name)))
    return folder


def _signature(predictor: Predictor) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    lists = {"vector": Array(DataType.double), "strings": Array(DataType.string)}
    inputs: list[Any] = [
        ColSpec(lists.get(kind) or _TYPES[kind], name, required=False)
        for name, kind in predictor.features.inputs.items()
    ]
    outputs: list[Any] = [ColSpec(type_, name) for name, type_ in predictor.answers.columns.items()]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def load_registered(uri: str, name: str, alias_or_version: str, folder: str) -> str:
    """Get a registered model as a local model folder.

    Args:
        uri: of MLflow, see `pipeline.tracking.tracking_uri`.
        name: of the registered model.
        alias_or_version: ``champion``, or ``3``.
        folder: local folder to keep models in; a model that is there already is not fetched again.

    Returns:
        The model folder; whoever loads it verifies it.

    Raises:
        InputMissingError: the store is a file that is not there.
        ServiceError: MLflow is not reachable, or has no such model.
    """
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).exists():  # MLflow would make it, and only then find no model in it
        raise InputMissingError(
            f"{name}@{alias_or_version} is not registered: {file} is missing; expected a registered model; run "
            "`pipeline run` first, or set tracking.uri"
        )
    store = Store(TrackingConfig(uri=uri), folder)
    with mlflow_errors(uri):
        if alias_or_version.isdigit():
            version = store.client.get_model_version(name, alias_or_version)
        else:
            version = store.client.get_model_version_by_alias(name, alias_or_version)
        target = Path(storage.local_path(folder)) / str(version.tags.get(_DIGEST_TAG, f"{name}-{version.version}"))
        if not (target / "manifest.json").exists():
            _download(store, version, target)
    return str(target)


def _download(store: Store, version: Any, target: Path) -> None:
    import mlflow.artifacts

    with tempfile.TemporaryDirectory() as local:
        source = f"{version.source.rstrip('/')}/artifacts/model"
        fetched = Path(mlflow.artifacts.download_artifacts(source, dst_path=local, tracking_uri=store.uri))
        if not (fetched / "manifest.json").exists():
            raise ServiceError(
                f"model {version.name} version {version.version} is not one that this package registered"
            )
        names = sorted(path.name for path in fetched.iterdir())
        for file in sorted(names, key=lambda name: name == "manifest.json"):
            storage.write_bytes(str(target / file), (fetched / file).read_bytes())
