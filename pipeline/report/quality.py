"""DRIVER. The report's pictures of how good the answers are: ranking, confusion, predicted against actual."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.inference.evaluate import Evaluation
from pipeline.report.charts import Axis, Cell, Line, cell_chart, line_chart
from pipeline.report.markup import section, side_by_side, text

STYLES = {
    "model": "model",
    "gradient-boosted trees": "trees",
    "logistic regression": "linear",
    "ridge regression": "linear",
    "majority class": "majority",
    "mean": "majority",
}
"""Class of the style sheet for each model."""

CONSTANTS = ("majority class", "mean")
"""Baselines that say the same of every row."""


def ranking(evaluation: Evaluation | None) -> str:
    """ROC and precision-recall curves of a binary label."""
    if evaluation is None or not evaluation.measured.curves.get("roc"):
        return ""
    shown = [m for m in (evaluation.measured, *reversed(evaluation.baselines)) if m.name not in CONSTANTS]

    def lines(curve: str) -> list[Line]:
        return [Line(m.name, m.curves[curve], STYLES.get(m.name, "majority")) for m in shown if m.curves.get(curve)]

    unit, positives = (0.0, 1.0), sum(evaluation.measured.confusion[1]) / max(1, evaluation.rows)
    roc = line_chart(
        lines("roc"),
        Axis("false positive rate", *unit),
        Axis("true positive rate", *unit),
        "ROC",
        ((0, 0), (1, 1)),
    )
    pr = line_chart(
        lines("pr"),
        Axis("recall", *unit),
        Axis("precision", *unit),
        "Precision and recall",
        ((0, positives), (1, positives)),
    )
    return section("Ranking", side_by_side(roc, pr), note="Dashed: what chance gives.")


def errors(evaluation: Evaluation | None) -> str:
    """The confusion matrix; with it calibration for a binary label; predicted against actual for regression."""
    if evaluation is None:
        return ""
    measured = evaluation.measured
    if measured.curves.get("cells"):
        return _predicted_against_actual(evaluation)
    if not measured.confusion:
        return ""
    matrix, groups = _confusion(measured.confusion, evaluation.classes), measured.curves.get("calibration", [])
    if not groups:
        return section("Errors", matrix, note=_CONFUSION)
    return section("Errors", side_by_side(matrix, _calibration(groups)), note=f"{_CONFUSION} {_CALIBRATION}")


_CONFUSION = "Shades are shares of each label's rows."
_CALIBRATION = (
    "Each point of the calibration is a tenth of the rows, by rising score; on the dashed line predictions can be "
    "taken literally."
)


def _calibration(groups: Sequence[Sequence[float]]) -> str:
    top = max([0.1, *(max(group[0], group[1]) for group in groups)])
    axes = Axis("mean predicted probability", 0, top), Axis("share of positives", 0, top)
    line = Line("model", [group[:2] for group in groups], "model", dots=True)
    return line_chart([line], *axes, "Calibration", ((0, 0), (top, top)))


def _confusion(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    head = "".join(f"<div>predicted {text(name)}</div>" for name in classes)
    rows = "".join(_confusion_row(name, row, len(classes) > 4) for name, row in zip(classes, table, strict=True))
    small = " small" if len(classes) > 4 else ""
    return (
        f"<figure><figcaption>Confusion matrix</figcaption><div class='confusion{small}' "
        f"style='--classes:{len(classes)}'><div></div>{head}{rows}</div></figure>"
    )


def _confusion_row(name: str, row: Sequence[int], terse: bool) -> str:
    total = sum(row)
    shares = [count / total if total else 0.0 for count in row]
    cells = "".join(
        f"<div class='cell' style='--share:{share:.3f}'><b>{count:,}</b>{'' if terse else f'{share:.1%} of the row'}"
        "</div>"
        for count, share in zip(row, shares, strict=True)
    )
    return f"<div>label {text(name)}<br>{total:,}</div>{cells}"


def _predicted_against_actual(evaluation: Evaluation) -> str:
    """Two pictures of the same rows: the model and the best of the baselines' kind beside it."""
    shown = [m for m in (evaluation.measured, *reversed(evaluation.baselines)) if m.name not in CONSTANTS][:2]
    charts = []
    for measured in shown:
        (low, high), cells = measured.curves["span"][0], measured.curves["cells"]
        axes = Axis("actual", low, high), Axis("predicted", low, high)
        drawn = [Cell(actual, predicted, int(rows)) for actual, predicted, rows in cells]
        charts.append(cell_chart(drawn, *axes, f"Predicted against actual, {measured.name}", STYLES[measured.name]))
    note = (
        "The stronger the color, the more test rows; on the dashed line predictions are right. The axes hold 99% of "
        "the train labels, rows beyond are drawn at the edge."
    )
    return section("Errors", side_by_side(*charts), note=note)
