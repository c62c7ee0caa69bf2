"""DRIVER. The report's section on several labels: what the model reaches of each, beside the best baseline for it."""

from __future__ import annotations

import math

from pipeline.inference.evaluate import SHOWN_AS, Evaluation
from pipeline.metrics import LOWER_IS_BETTER, METRICS
from pipeline.report.tables import metric, row, table, text


def labels(evaluation: Evaluation | None) -> str:
    """A table with a row for each label; nothing where there is only one."""
    if evaluation is None or not evaluation.labels:
        return ""
    names, decisive = METRICS[evaluation.label_type], evaluation.decisive
    rows = [
        row(
            [
                text(label),
                *(metric(evaluation.metrics.get(f"{name}_{label}")) for name in names),
                _best_baseline(evaluation, f"{decisive}_{label}", decisive in LOWER_IS_BETTER),
            ]
        )
        for label in evaluation.labels
    ]
    shown = [SHOWN_AS.get(name, name) for name in names]
    head = ["label", *shown, f"best baseline's {SHOWN_AS.get(decisive, decisive)}"]
    return f"<h2>Labels</h2><p class='note'>The model, label by label.</p>{table(head, rows)}"


def _best_baseline(evaluation: Evaluation, name: str, lower: bool) -> str:
    values = [(value, one.name) for one in evaluation.baselines if (value := one.metrics.get(name)) is not None]
    reached = [pair for pair in values if not math.isnan(pair[0])]
    if not reached:
        return metric(None)
    value, baseline = (min if lower else max)(reached)
    return f"{metric(value)} ({text(baseline)})"
