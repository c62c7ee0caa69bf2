"""DRIVER. The model beside its baselines, measured on the very same rows; in the report and below a notebook's cell."""

from __future__ import annotations

from pipeline.inference.evaluate import SHOWN_AS, Evaluation, Measured, best_of
from pipeline.metrics import METRICS
from pipeline.report.markup import metric, row, table, text
from pipeline.report.quality import CONSTANTS


def comparison(evaluation: Evaluation | None) -> str:
    """The table, if there is an evaluation."""
    return render_table(evaluation) if evaluation is not None else ""


def render_table(evaluation: Evaluation) -> str:
    """The model beside its baselines, as an HTML table.

    The best value of each metric is marked; a baseline that says the same of every row is no contestant, since it has
    the best recall wherever it says 1.
    """
    everyone = [evaluation.measured, *reversed(evaluation.baselines)]
    contestants = [measured for measured in everyone if measured.name not in CONSTANTS]
    names = METRICS[evaluation.label_type]
    winners = {name: best.metrics[name] for name in names if (best := best_of(name, contestants)) is not None}

    def cell(measured: Measured, name: str) -> str:
        shown = metric(value := measured.metrics.get(name))
        return f'<td class="best">{shown}</td>' if value is not None and value == winners.get(name) else shown

    rows = [
        row([text(one.name), *(cell(one, name) for name in names)], "own" if one is evaluation.measured else "")
        for one in everyone
    ]
    head = ["on the test split", *(SHOWN_AS.get(name, name) for name in names)]
    baselines = "".join(f"<li><b>{text(one.name)}</b>: {text(one.note)}</li>" for one in everyone if one.note)
    return f"{table(head, rows)}<p class='note'>{_how(evaluation)}</p><ul class='note'>{baselines}</ul>"


def _how(evaluation: Evaluation) -> str:
    """What has to be known to read the numbers."""
    weighted = f", weighted by {text(evaluation.weight)}" if evaluation.weight is not None else ""
    means = f"; plain means over {len(evaluation.labels)} labels" if evaluation.labels else ""
    conventions = {
        "binary": f"{means}; predicted positive from probability 0.5 on. Scores are binned: ROC AUC is exact to "
        f"{evaluation.roc_auc_bound:.1g}",
        "multiclass": "; precision, recall and F1 are plain means over the classes",
        "regression": f"{means}; MAE and RMSE in the unit of the label",
    }
    return f"All on the same {evaluation.rows:,} test rows{weighted}{conventions[evaluation.label_type]}."
