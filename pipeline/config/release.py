"""ANYWHERE. The sections that say what happens to a trained model: tracking, gate, serving, evaluation."""

from __future__ import annotations

from pydantic import Field, model_validator

from pipeline.config.section import Section, TrackingUri, Url, check_order


class TrackingConfig(Section):
    """Where MLflow keeps runs and models; a relative sqlite path is relative to the configuration file."""

    uri: TrackingUri | None = None
    """By default what MLFLOW_TRACKING_URI names, else `mlflow.db` beside the run folder."""
    experiment: str = "pipeline"
    """Its name in MLflow; made where there is none."""
    registered_model: str | None = None
    """The name under which a model that meets the gate is registered; without it none is."""
    alias: str = "champion"
    """Moved to the version that is registered."""
    artifacts: Url | None = None
    """Where a new experiment keeps its files; by default beside the sqlite file, else the server decides."""


class Bound(Section):
    """What a metric of the test split must reach; `log_loss` in nats, `mae` and `rmse` in the label's unit.

    A binary label has accuracy, precision, recall, f1, roc_auc, pr_auc and log_loss; a multiclass label all of these
    but roc_auc and pr_auc, precision, recall and f1 as means over the classes; a regression label mae, rmse and r2.
    """

    min: float | None = None
    """The least value that passes."""
    max: float | None = None
    """The greatest value that passes."""

    @model_validator(mode="after")
    def _some_bound(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("neither min nor max is set; expected at least one")
        check_order(self.min, self.max)
        return self


class EvaluationConfig(Section):
    """What the model is measured beside."""

    baseline_rows: int = Field(default=1_000_000, ge=1)
    """The most train rows that the baselines are fitted on: the first ones, in hash order; stated in the report."""
    slices: list[str] = []
    """Kept columns whose values the report breaks the metrics down by."""


class ServingConfig(Section):
    """The HTTP server's address and limits."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8080, ge=0, le=65535)
    """0 lets the system choose a free one; the log says which."""
    public: bool = False
    """Allow a `host` that other machines can reach; the server has no authentication of its own."""
    max_rows: int = Field(default=1000, ge=1)
    """Rows in one request."""
    max_body_bytes: int = Field(default=4 << 20, ge=1)
    """Bytes in one request."""
    max_concurrency: int = Field(default=8, ge=1)
    """Requests worked on at a time; more are answered with 503 and Retry-After."""
    request_seconds: float = Field(default=10.0, gt=0)
    """How long a client may take to send its request."""
    drain_seconds: float = Field(default=30.0, gt=0)
    """After SIGTERM, how long requests under way may take to finish."""
