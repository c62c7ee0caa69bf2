"""DRIVER. The report's section on several labels: what the model reaches of each, beside the best baseline for it."""

from __future__ import annotations

from pipeline.inference.evaluate import SHOWN_AS, Evaluation
from pipeline.metrics import METRICS
from pipeline.report.markup import metric, row, section, table, text


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
                _best_baseline(evaluation, f"{decisive}_{label}"),
            ]
        )
        for label in evaluation.labels
    ]
    shown = [SHOWN_AS.get(name, name) for name in names]
    head = ["label", *shown, f"best baseline's {SHOWN_AS.get(decisive, decisive)}"]
    return section("Labels", table(head, rows), note="The model, label by label.")


def _best_baseline(evaluation: Evaluation, name: str) -> str:
    baseline = evaluation.best_baseline(name)
    return metric(None) if baseline is None else f"{metric(baseline.metrics[name])} ({text(baseline.name)})"
