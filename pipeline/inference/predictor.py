"""ANYWHERE. The one thing that turns raw rows into predictions: features, model and weights from a model folder.

Evaluation, batch scoring, HTTP serving and MLflow's entry all use it. Rows go through the model in chunks of a
fixed number of rows, the last one padded, so that a row's prediction does not depend on the rows beside it: matrix
libraries choose their order of addition by the shape of the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.config.training import ModelConfig
from pipeline.dataset import Dataset, DatasetSchema
from pipeline.errors import ConfigError, DataError, SecurityError, StorageError
from pipeline.features import FittedFeatures, canonical
from pipeline.fingerprint import source_digest
from pipeline.inference.inputs import model_inputs
from pipeline.inference.program import ProgramModel, answer_of, export_program
from pipeline.models import build_model
from pipeline.models.answers import Answers
from pipeline.models.model_folder import ModelDescription, read_model_folder, write_model_folder

if TYPE_CHECKING:
    from pipeline.task import UserCode

logger = logging.getLogger(__name__)

CHUNK_ROWS = 512
"""Rows in one forward; part of what a program means, so it never changes."""


def export_model(
    dataset: Dataset,
    model: ModelConfig,
    weights: Mapping[str, Tensor],
    folder: str,
    user_code: UserCode | None = None,
    made_with: Mapping[str, str] | None = None,
) -> str:
    """Write the model folder of a trained model; returns the model's digest.

    A model from code, and that of a factory, is kept as a program of tensor operations, which needs no code any more.
    A factory whose model cannot be traced is kept by its name and the digest of its module's source.

    Args:
        dataset: the one trained on; its fitted features become part of the model.
        model: the architecture's configuration.
        weights: as of the module's ``state_dict``.
        folder: URL to write to.
        user_code: a model class or function of the user's program takes the place of the configured one.
        made_with: the collective and the reader of the training; noted in the manifest, no part of the digest.

    Raises:
        ConfigError: the model from code cannot be kept as a program.
    """
    program = source = None
    from_code = user_code is not None and user_code.model is not None
    if from_code or model.factory is not None:
        module = build_model(model, dataset.schema, user_code).float()
        module.load_state_dict(dict(weights))
        try:
            program, weights = export_program(module, example_inputs(dataset.schema))
            model = ModelConfig()
        except ConfigError as error:
            if from_code or model.factory is None:
                raise
            logger.info("%s; whoever loads it must allow %s, as it is now", error, model.factory)
            source = source_digest(model.factory)
    description = ModelDescription(
        model, program, dataset.schema, dataset.manifest.statistics, dataset.content_id, source
    )
    return write_model_folder(folder, description, weights, made_with)


def check_exportable(model: ModelConfig, schema: DatasetSchema, user_code: UserCode, rows: int = CHUNK_ROWS) -> None:
    """Before hours of training, make sure that a model of the user's predicts, and that one from code can be kept.

    Args:
        model: its configuration.
        schema: of the dataset.
        user_code: a model class or function in it takes the place of the configured one.
        rows: in the forward that is tried, if fewer than those of a chunk.

    Raises:
        ConfigError: says why not.
    """
    from_code = user_code.model is not None
    if not from_code and model.factory is None:
        return
    module = build_model(model, schema, user_code).float()
    inputs = {name: tensor[:rows] for name, tensor in example_inputs(schema).items()}
    answer_of(module, inputs)
    try:
        export_program(module, inputs)
    except ConfigError as error:
        if from_code:
            raise
        logger.info("%s; whoever loads it must allow %s, as it is now", error, model.factory)


def example_inputs(schema: DatasetSchema) -> dict[str, Tensor]:
    """Inputs of one chunk, every value in its valid range."""
    random = np.random.default_rng(0)
    inputs: dict[str, npt.NDArray[Any]] = {}
    if schema.numeric:
        inputs["numeric"] = random.normal(size=(CHUNK_ROWS, len(schema.numeric))).astype(np.float32)
    if schema.cardinalities:
        ids = [random.integers(0, count, CHUNK_ROWS) for count in schema.cardinalities.values()]
        inputs["categorical"] = np.column_stack(ids).astype(np.int64)
    for name, shape in schema.vectors.items():
        inputs[name] = np.ones((CHUNK_ROWS, *shape), schema.column(name).dtype)
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


@dataclass(frozen=True)
class PredictorSource:
    """How another process gets the same predictor: small values that travel well."""

    folder: str
    digest: str
    allow_factories: tuple[str, ...] = ()

    def load(self) -> Predictor:
        """The predictor, loaded once per process.

        Raises:
            StorageError: the folder holds another model by now.
        """
        return _loaded(self)


@lru_cache(maxsize=2)
def _loaded(source: PredictorSource) -> Predictor:
    predictor = Predictor.load(source.folder, source.allow_factories)
    if predictor.digest != source.digest:
        raise StorageError(
            f"{source.folder} holds model {predictor.digest[:12]}; expected {source.digest[:12]}; load it anew"
        )
    return predictor


class Predictor:
    """A model with its features, ready to predict; see `Predictor.load`.

    Attributes:
        source: from where it can be loaded again, for instance by Spark's Python workers.
        digest: names the model by its content.
        schema: of the dataset it was trained on.
        dataset: that dataset's content id.
        answers: how its output is read.
    """

    def __init__(self, description: ModelDescription, module: nn.Module, source: PredictorSource) -> None:
        self.source = source
        self.digest = source.digest
        self.schema = description.schema
        self.dataset = description.dataset
        self.answers = Answers.of(description.schema, description.features.get("label", {}))
        self._description = description
        self._module = module.eval()

    @classmethod
    def load(cls, folder: str, allow_factories: Sequence[str] = ()) -> Predictor:
        """Load a model folder.

        Args:
            folder: its URL.
            allow_factories: ``package.module:function`` names that the caller trusts; a model that names another
                one is refused before anything is imported.

        Raises:
            StorageError: a file is missing or corrupt, or the factory's source is another one than in training.
            SecurityError: the model needs a factory that is not allowed, or holds an unknown operation.
        """
        description, weights, digest = read_model_folder(folder)
        source = PredictorSource(folder, digest, tuple(allow_factories))
        if description.program is not None:
            return cls(description, ProgramModel(description.program, weights), source)
        factory = description.architecture.factory
        if factory is not None and factory not in allow_factories:
            raise SecurityError(
                f"model {folder} is built by {factory}, which is not allowed; expected a built-in architecture; "
                f"if you trust that code, allow the factory {factory}"
            )
        if description.source is not None and description.source != (now := source_digest(str(factory))):
            raise StorageError(
                f"model {folder} was trained with {factory} when the source of its module had the sha256 "
                f"{description.source[:12]}; that is {now[:12] if now else 'missing'} now; expected the same; "
                "bring that source back, or train again"
            )
        module = build_model(description.architecture, description.schema).float()
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            raise StorageError(f"the weights of {folder} do not fit its architecture: {error}") from error
        return cls(description, module, source)

    @property
    def statistics(self) -> Mapping[str, Any]:
        """The fitted state as JSON, as in the dataset's manifest."""
        return self._description.features

    @cached_property
    def features(self) -> FittedFeatures:
        """The fitted features: the very ones of preparation."""
        return FittedFeatures.from_json(self._description.features)

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predict raw rows.

        Args:
            rows: at least the raw columns of ``features.inputs``; others are ignored.

        Returns:
            What the label type asks for (see `pipeline.models.answers`), with the index of ``rows``:
            ``prediction`` (int32 0 or 1, a class's name, or a float64 value), and of classes ``probability``
            (float32, of class 1 or of the predicted class); with several labels ``prediction_<label>`` of each.

        Raises:
            DataError: columns are missing or hold values of the wrong kind; names all of them.
        """
        return pd.DataFrame(self.answers.table(self.predict_canonical(self.canonical(rows))), index=rows.index)

    def probabilities(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The probability of every class for raw rows: float32, one column per class, with the index of ``rows``.

        Raises:
            ConfigError: the label has no classes, or there are several labels.
            DataError: as `predict`.
        """
        if self.answers.type in ("regression", None):
            raise ConfigError("the model predicts numbers; expected a label with classes; use predict")
        if self.answers.labels:
            raise ConfigError(f"the model has {len(self.answers.labels)} labels; expected one; use predict")
        answer = self.predict_canonical(self.canonical(rows))
        if self.answers.type == "binary":
            return pd.DataFrame({"0": 1 - answer, "1": answer}, index=rows.index)
        return pd.DataFrame(answer, index=rows.index, columns=list(self.answers.classes))

    def canonical(self, rows: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
        """The raw columns that features need, in the form that they take."""
        missing = [name for name in self.features.inputs if name not in rows.columns]
        if missing:
            raise DataError(
                *(f"column {name} is missing; expected {self.features.inputs[name]} values; add it" for name in missing)
            )
        raw: dict[str, npt.NDArray[Any]] = {}
        offences: list[str] = []
        for name, kind in self.features.inputs.items():
            try:
                raw[name] = canonical(rows[name], kind)
            except DataError as error:
                offences.extend(f"column {name}: {offence}" for offence in error.offences)
        if offences:
            raise DataError(*offences)
        return raw

    def predict_canonical(self, raw: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The answer to each row of canonical raw columns, encoded by the features of training."""
        return self.predict_encoded(model_inputs(self.features.transform(raw), self.schema))

    def predict_encoded(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The answer to each row of encoded inputs, see `model_inputs` and `Answers.from_output`."""
        rows = len(next(iter(inputs.values())))
        results = [self.answers.empty()]
        with torch.inference_mode():
            for start in range(0, rows, CHUNK_ROWS):
                chunk = {name: _padded(values[start : start + CHUNK_ROWS]) for name, values in inputs.items()}
                results.append(self.answers.from_output(self._module(chunk))[: rows - start])
        return np.concatenate(results)


def _padded(values: npt.NDArray[Any]) -> Tensor:
    padding = [(0, CHUNK_ROWS - len(values))] + [(0, 0)] * (values.ndim - 1)
    return torch.from_numpy(np.ascontiguousarray(np.pad(values, padding)))
