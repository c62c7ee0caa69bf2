"""ANYWHERE. The fixed file that MLflow runs when it loads a registered model: no more than a way to the predictor.

The predictor comes from the installed package and verifies the model folder before it uses it.
"""

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]

from pipeline.inference.predictor import Predictor


class Entry(PythonModel):
    """Raw rows in, ``prediction`` (and of classes ``probability``) out."""

    def load_context(self, context):  # type: ignore[no-untyped-def]
        """Load and verify the model folder."""
        self._predictor = Predictor.load(context.artifacts["model"])

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        """Predict a pandas frame of raw rows."""
        return self._predictor.predict(model_input)


set_model(Entry())
