"""DRIVER. The report's learning curves: what train and validation rows said, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.inference.evaluate import SHOWN_AS
from pipeline.metrics import DECISIVE
from pipeline.report.charts import Axis, Line, line_chart
from pipeline.report.content import Content
from pipeline.report.markup import section, side_by_side


def learning_curves(content: Content) -> str:
    """Loss of both, and the metric that decides, with the epoch whose weights the model has."""
    name = content.evaluation.decisive if content.evaluation else DECISIVE["binary"]
    note = "Training loss is the mean over the epoch, while weights still move; validation is measured at its end."
    if content.best_epoch is not None:
        note += f" The filled points are epoch {content.best_epoch}, whose weights the model has."
    charts = [
        _over_epochs(content, "loss", {"train": "train_loss", "validation": "validation_loss"}),
        _over_epochs(content, SHOWN_AS.get(name, name), {"validation": f"validation_{name}"}),
    ]
    return section("Learning curves", side_by_side(*charts), note=note)


def _over_epochs(content: Content, label: str, keys: Mapping[str, str]) -> str:
    lines = []
    for name, key in keys.items():
        points = [(epoch, line[key]) for epoch, line in enumerate(content.epochs, 1) if line.get(key) is not None]
        best = [point for point in points if point[0] == content.best_epoch and name == "validation"]
        if points:
            style = "model" if name == "validation" else "trees"
            lines.append(Line(name, points, style, dots=True, marked=best[0] if best else None))
    if not lines:
        return ""
    x = Axis("epoch", 1 - 0.2, max(len(content.epochs), 2) + 0.2, whole=True)
    y = Axis.around(label, [point[1] for line in lines for point in line.points])
    names = " and ".join(line.name for line in lines)
    return line_chart(lines, x, y, f"{label[:1].upper()}{label[1:]}, {names}")
