"""DRIVER. One MLflow tracking store: where it is, and the few things that are said to it."""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import storage
from pipeline.config.release import TrackingConfig
from pipeline.config.secret_values import from_environment
from pipeline.errors import ConfigError, PipelineError, ServiceError
from pipeline.run_folder import TRACKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from pipeline.dataset import Dataset

logger = logging.getLogger(__name__)

_RUN_FORMAT = ("tracking", 1)
_BATCH = 100
_LONGEST_NAME = 250
_LONGEST_VALUE = 500

# MLflow's own defaults are 7 retries with growing pauses and 120 s each; its telemetry waits for the network.
_MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
}


def tracking_uri(config: TrackingConfig, run_url: str) -> str:
    """Where MLflow is: as configured, as the environment says, or a sqlite file beside the run folder.

    Raises:
        ConfigError: none of them, since the run folder is not on this machine; or a variable in it is not set.
    """
    configured = from_environment(config.uri or "", "tracking.uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if configured:
        return configured
    if not storage.is_local(run_url):
        raise ConfigError(
            f"tracking.uri is missing; expected an MLflow server, since the run folder {run_url} is not on this machine"
        )
    return f"sqlite:///{Path(storage.local_path(run_url)).parent / 'mlflow.db'}"


def use_mlflow_settings() -> None:
    """Set what MLflow reads from the environment, unless the user has; for the rest of the process."""
    for name, value in _MLFLOW_SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into a `ServiceError`; its stores raise database and network errors of many kinds.

    An error of our own, such as that of a full disk, stays what it is.
    """
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        reason = without_password((str(error).strip() or type(error).__name__).splitlines()[0])[:200]
        raise ServiceError(
            f"MLflow at {without_password(uri)} is not usable: {reason}; expected a reachable tracking store; "
            "start it, or set tracking.uri, and run the same command again"
        ) from error


def without_password(text: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def mlflow_name(name: str) -> str:
    """The name of a metric, a parameter or a tag as MLflow takes it, which may use it as a path."""
    known = re.sub(r"[^\w\-. /:]", "_", name)[:_LONGEST_NAME]
    return known if posixpath.normpath(known) == known and known[0] not in "./" else re.sub(r"[./]", "_", known)


class Store:
    """MLflow as seen from one run folder. Every method may raise `ServiceError`, or `StorageError` of that folder.

    Args:
        config: the configuration's section.
        run_url: the run folder; ``tracking.json`` in it names the MLflow run, so that a resumed run goes on there.
    """

    def __init__(self, config: TrackingConfig, run_url: str) -> None:
        self.uri = tracking_uri(config, run_url)
        self.run_url = run_url
        self._config = config
        self._note = storage.join(run_url, TRACKING)
        self._said: set[str] = set()

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client; imported here, since that takes seconds, and in a thread of ours they cost nobody."""
        use_mlflow_settings()
        with mlflow_errors(self.uri):
            if self.uri.startswith("sqlite:///"):
                os.makedirs(os.path.dirname(self.uri.removeprefix("sqlite:///")) or ".", exist_ok=True)
            from mlflow import MlflowClient

            return MlflowClient(self.uri, self.uri)

    def known_run(self) -> str | None:
        """The MLflow run that an earlier attempt of this run folder created in this very store."""
        if not storage.exists(self._note):
            return None
        note = storage.read_json(self._note, *_RUN_FORMAT)
        return str(note["run_id"]) if note["uri"] == without_password(self.uri) else None

    def open_run(self) -> tuple[str, bool]:
        """The run of this run folder, going on, and whether it is new."""
        run_id, new = self.find_or_create_run()
        if not new:
            with mlflow_errors(self.uri):
                self.client.update_run(run_id, status="RUNNING")
        return run_id, new

    def find_or_create_run(self) -> tuple[str, bool]:
        """The run of this run folder, and whether it is new: where none was, or the store has it no more."""
        with mlflow_errors(self.uri):
            if (known := self.known_run()) is not None:
                if self._has(known):
                    return known, False
                logger.warning("tracking: MLflow has run %s no more; there is a new one", known)
            tags = {"pipeline.run_url": without_password(self.run_url)}
            name = self.run_url.rstrip("/").rsplit("/", 1)[-1]
            run = self.client.create_run(self._experiment(), tags=tags, run_name=name)
        run_id = str(run.info.run_id)
        storage.write_json(self._note, *_RUN_FORMAT, {"run_id": run_id, "uri": without_password(self.uri)})
        return run_id, True

    def _has(self, run_id: str) -> bool:
        """Whether a run is there, and not in MLflow's trash."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _experiment(self) -> str:
        name = self._config.experiment
        if (found := self.client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        try:
            return str(self.client.create_experiment(name, artifact_location=self._artifact_location()))
        except Exception:
            if (found := self.client.get_experiment_by_name(name)) is not None:  # somebody else was faster
                return str(found.experiment_id)
            raise

    def _artifact_location(self) -> str | None:
        """MLflow's default would be ``mlruns`` in the working directory."""
        folder = self._config.artifacts
        if folder is None and self.uri.startswith("sqlite:///"):
            folder = str(Path(self.uri.removeprefix("sqlite:///")).parent / "mlflow-artifacts")
        return Path(storage.local_path(folder)).as_uri() if folder and storage.is_local(folder) else folder

    def log_parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        """Log parameters of a new run; a parameter can never be changed."""
        from mlflow.entities import Param

        shown = {name: without_password(value)[:_LONGEST_VALUE] for name, value in parameters.items()}
        self._log(run_id, "params", [Param(self._named(name), value) for name, value in shown.items()])

    def log_metrics(self, run_id: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Log metric records (key, value, timestamp in ms, step); logging one again changes nothing."""
        from mlflow.entities import Metric

        self._log(run_id, "metrics", [Metric(**{**record, "key": self._named(record["key"])}) for record in records])

    def _log(self, run_id: str, kind: str, entities: Sequence[Any]) -> None:
        with mlflow_errors(self.uri):
            for start in range(0, len(entities), _BATCH):
                self._log_batch(run_id, kind, entities[start : start + _BATCH])

    def _log_batch(self, run_id: str, kind: str, entities: Sequence[Any]) -> None:
        """Log all together; where MLflow refuses some, all others, and say which."""
        from mlflow.exceptions import MlflowException

        named: dict[str, Any] = {kind: entities}
        try:
            self.client.log_batch(run_id, **named)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            if len(entities) > 1:
                for entity in entities:
                    self._log_batch(run_id, kind, [entity])
            else:
                self._say_once(f"tracking: MLflow refuses {entities[0].key}: {str(error).splitlines()[0][:200]}")

    def _named(self, name: str) -> str:
        if (known := mlflow_name(name)) != name:
            self._say_once(f"tracking: {name} is {known} in MLflow, which takes fewer characters in names")
        return known

    def _say_once(self, warning: str) -> None:
        if warning not in self._said:
            self._said.add(warning)
            logger.warning("%s", warning)

    def log_dataset(self, run_id: str, dataset: Dataset) -> None:
        """Name the dataset that the run was trained on by its content id."""
        from mlflow.entities import Dataset as MlflowDataset
        from mlflow.entities import DatasetInput

        entity = MlflowDataset(
            name=dataset.url.rstrip("/").rsplit("/", 1)[-1],
            digest=dataset.content_id[:36],
            source_type="pipeline",
            source=without_password(dataset.url),
        )
        with mlflow_errors(self.uri):
            self.client.log_inputs(run_id, datasets=[DatasetInput(entity, tags=[])])

    def log_files(self, run_id: str, urls: Sequence[str]) -> None:
        """Log files of the run folder as artifacts."""
        with mlflow_errors(self.uri):
            for url in urls:
                self.client.log_text(run_id, storage.read_bytes(url).decode(), url.rsplit("/", 1)[-1])

    def end_run(self, run_id: str, state: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        with mlflow_errors(self.uri):
            self.client.set_terminated(run_id, state)
