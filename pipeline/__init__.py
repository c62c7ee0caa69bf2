"""From raw Spark tables to a served PyTorch model, in stages that hand each other small values.

    raw tables -> read, clean, split, fit, encode, publish    pipeline.prepare(df_or_config)   -> Dataset
    Dataset    -> one rank per Spark task                     pipeline.train(dataset)          -> Run
    Run        -> the test split, beside baselines            pipeline.evaluate(run)           -> Evaluated
    Evaluated  -> quality gate, MLflow registry               pipeline.register(evaluated)    -> Model
    Model      -> a Spark table                               pipeline.score(df, model)        -> DataFrame
               -> HTTP                                        pipeline serve MODEL

ANYWHERE. Importing this package imports nothing heavy: every name below loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pipeline.config import load_config as load_config
    from pipeline.dataset import Dataset as Dataset
    from pipeline.flow import evaluate as evaluate
    from pipeline.flow import prepare as prepare
    from pipeline.flow import register as register
    from pipeline.flow import score as score
    from pipeline.flow import spark_session as spark_session
    from pipeline.flow import train as train
    from pipeline.stage_values import Evaluated as Evaluated
    from pipeline.stage_values import Model as Model
    from pipeline.stage_values import Run as Run
    from pipeline.stages import run as run

_HOMES = {
    "Dataset": "pipeline.dataset",
    "Evaluated": "pipeline.stage_values",
    "Model": "pipeline.stage_values",
    "Run": "pipeline.stage_values",
    "evaluate": "pipeline.flow",
    "load_config": "pipeline.config",
    "prepare": "pipeline.flow",
    "register": "pipeline.flow",
    "run": "pipeline.stages",
    "score": "pipeline.flow",
    "spark_session": "pipeline.flow",
    "train": "pipeline.flow",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
