"""DRIVER. The report's page: sections in the order in which a reader asks for them.

Whatever comes from data or configuration passes through `text`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.dataset import Manifest
from pipeline.inference.evaluate import SHOWN_AS, Evaluation, Measured, number
from pipeline.metrics import DECISIVE, LOWER_IS_BETTER, METRICS, LabelType
from pipeline.report.charts import Axis, Line, line_chart
from pipeline.report.columns import columns
from pipeline.report.content import Content
from pipeline.report.labels import labels
from pipeline.report.quality import CONSTANTS, errors, ranking
from pipeline.report.style import STYLE
from pipeline.report.tables import metric, row, table, text

_TILES: dict[LabelType, tuple[str, ...]] = {
    "binary": ("roc_auc", "pr_auc", "accuracy", "log_loss"),
    "multiclass": ("accuracy", "f1", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
}

_SLICES: dict[LabelType, tuple[str, ...]] = {
    "binary": ("accuracy", "roc_auc"),
    "multiclass": ("accuracy", "log_loss"),
    "regression": ("mae", "rmse"),
}


def render_report(run_url: str, result: Mapping[str, Any] | None = None) -> str:
    """The report of a run.

    Args:
        run_url: the run folder.
        result: the values of RESULT so far; by default those of ``<run>/result.json``.
    """
    content = Content.read(run_url, result)
    sections = [
        _headline(content),
        labels(content.evaluation),
        _learning_curves(content),
        ranking(content.evaluation),
        errors(content.evaluation),
        _slices(content),
        _accounting(content),
        columns(content.profile),
        _seconds(content),
        _configuration(content),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(content.name)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _headline(content: Content) -> str:
    result, evaluation = content.result, content.evaluation
    model = result.get("model") or {}
    registered = f"{model['name']} version {model['version']}" if model.get("name") else "not registered"
    dataset = str((result.get("dataset") or {}).get("content_id", ""))[:12]
    header = (
        f"<header><h1>{text(content.name)}</h1><div class='sub'>{text(registered)}"
        f" · dataset <code>{text(dataset or '–')}</code> · <code>{text(content.url)}</code>{_stack(result)}</div>"
    )
    if result.get("error"):
        header += f"<p class='verdict failed'>{text(result['error'])}</p>"
    if evaluation is None:
        return f"{header}<p class='verdict failed'>There is no evaluation.</p></header>"
    lost = "" if evaluation.verdict.startswith("The model wins") else " lost"
    tiles = "".join(
        f"<div class='tile'><span>{SHOWN_AS.get(name, name)}</span><b>{metric(evaluation.metrics.get(name))}</b>"
        f"<span>{_against_best(name, evaluation)}</span></div>"
        for name in _TILES[evaluation.label_type]
    )
    return (
        f"{header}<p class='verdict{lost}'>{text(evaluation.verdict)}</p></header>"
        f"<div class='tiles'>{tiles}</div>{render_table(evaluation)}"
    )


def _stack(result: Mapping[str, Any]) -> str:
    """What carried the training out."""
    run = result.get("run") or {}
    if not run.get("collective"):
        return ""
    ranks = {"none": "one rank"}.get(run["collective"], f"ranks over {run['collective']}")
    ranks += " in shared memory" if run.get("shared_memory") else ""
    return f" · {text(ranks)}, read with {text(run['reader'])}"


def _against_best(name: str, evaluation: Evaluation) -> str:
    best, own = _best(name, evaluation.baselines), evaluation.metrics.get(name)
    if best is None or own is None or math.isnan(own):
        return ""
    better = (own < best) if name in LOWER_IS_BETTER else (own > best)
    difference = f"{'+' if own > best else ''}{number(own - best)}"
    return f"<em class='{'good' if better else 'bad'}'>{difference}</em> against the best baseline"


def render_table(evaluation: Evaluation) -> str:
    """The model beside its baselines, as an HTML table."""
    everyone = [evaluation.measured, *reversed(evaluation.baselines)]
    names = METRICS[evaluation.label_type]
    best = {name: _best(name, everyone) for name in names}
    rows = [
        row(
            [
                text(measured.name),
                *(
                    f'<td class="best">{metric(value)}</td>' if value == best[name] else metric(value)
                    for name in names
                    for value in [measured.metrics.get(name)]
                ),
            ],
            "own" if measured is evaluation.measured else "",
        )
        for measured in everyone
    ]
    notes = "".join(f"<li><b>{text(m.name)}</b>: {text(m.note)}</li>" for m in everyone if m.note)
    weighted = f", weighted by {text(evaluation.weight)}" if evaluation.weight is not None else ""
    on_what = f"{evaluation.rows:,} test rows{weighted}{_how(evaluation)}"
    head = ["on the test split", *(SHOWN_AS.get(name, name) for name in names)]
    return f"{table(head, rows)}<p class='note'>All on the same {on_what}.</p><ul class='note'>{notes}</ul>"


def _how(evaluation: Evaluation) -> str:
    means = f"; plain means over {len(evaluation.labels)} labels" if evaluation.labels else ""
    if evaluation.label_type == "binary":
        bound = f"{evaluation.roc_auc_bound:.1g}"
        return f"{means}; predicted positive from probability 0.5 on. Scores are binned: ROC AUC is exact to {bound}"
    if evaluation.label_type == "multiclass":
        return "; precision, recall and F1 are plain means over the classes"
    return f"{means}; MAE and RMSE in the unit of the label"


def _best(name: str, everyone: Sequence[Measured]) -> float | None:
    """The best value; a baseline that says the same of every row is no contestant."""
    contestants = [m for m in everyone if m.name not in CONSTANTS]
    values = [value for m in contestants if (value := m.metrics.get(name)) is not None and not math.isnan(value)]
    return (min if name in LOWER_IS_BETTER else max)(values, default=None)


def _learning_curves(content: Content) -> str:
    name = content.evaluation.decisive if content.evaluation else DECISIVE["binary"]
    charts = [
        _over_epochs(content, "loss", {"train": "train_loss", "validation": "validation_loss"}),
        _over_epochs(content, SHOWN_AS.get(name, name), {"validation": f"validation_{name}"}, name),
    ]
    if not any(charts):
        return ""
    note = (
        "Training loss is the mean over the epoch, while weights still move; validation is measured at its end. "
        "A filled point marks the best epoch."
    )
    return f"<h2>Learning curves</h2><p class='note'>{note}</p><div class='grid2'>{''.join(charts)}</div>"


def _over_epochs(content: Content, label: str, keys: Mapping[str, str], metric: str = "loss") -> str:
    styles = iter(("trees", "model") if len(keys) > 1 else ("model",))
    lines = []
    for name, key in keys.items():
        points = [(number, line[key]) for number, line in enumerate(content.epochs, 1) if line.get(key) is not None]
        style = next(styles)
        if points:
            best = (min if metric in LOWER_IS_BETTER else max)(points, key=lambda point: point[1])
            lines.append(Line(name, points, style, dots=True, marked=best if name == "validation" else None))
    if not lines:
        return ""
    x = Axis("epoch", 1 - 0.2, max(len(content.epochs), 2) + 0.2)
    y = Axis.around(label, [point[1] for line in lines for point in line.points])
    names = " and ".join(line.name for line in lines)
    return line_chart(lines, x, y, f"{label[:1].upper()}{label[1:]}, {names}")


def _slices(content: Content) -> str:
    if content.evaluation is None:
        return ""
    slices, shown = content.evaluation.slices, _SLICES[content.evaluation.label_type]
    tables = []
    for column in dict.fromkeys(entry.column for entry in slices):
        entries = sorted((e for e in slices if e.column == column), key=lambda e: (-e.rows, e.value))
        rows = [
            row(
                [
                    text(entry.value),
                    f"{entry.rows:,}",
                    *([f"{entry.positives / max(1, entry.rows):.1%}"] if entry.positives is not None else []),
                    *(metric(entry.metrics.get(name)) for name in shown),
                ]
            )
            for entry in entries
        ]
        share = ["positives"] if entries[0].positives is not None else []
        tables.append(table([column, "rows", *share, *(SHOWN_AS.get(name, name) for name in shown)], rows))
    return f"<h2>Slices</h2>{''.join(tables)}" if tables else ""


def _meter(share: float) -> str:
    part = 0.0 if math.isnan(share) else min(1.0, max(0.0, share))
    return f"<span class='meter'><i style='width:{part:.1%}'></i></span>"


def _accounting(content: Content) -> str:
    manifest = content.manifest
    if manifest is None:
        return ""
    rows = manifest.accounting
    parts = {"published": rows.published, "duplicates": rows.duplicates, "rejected": rows.rejected}
    bar = "".join(
        f"<i class='{name}' style='width:{count / max(1, rows.rows_in):.3%}'></i>"
        for name, count in parts.items()
        if count
    )
    legend = [
        row(
            [f"<td><span class='swatch {name}'></span>{name}</td>", f"{count:,}", f"{count / max(1, rows.rows_in):.2%}"]
        )
        for name, count in parts.items()
    ]
    reasons = [
        row([text(reason), f"{count:,}"]) for reason, count in sorted(rows.reasons.items(), key=lambda item: -item[1])
    ]
    splits = [row([text(split), f"{manifest.rows(split):,}", _classes(manifest, split)]) for split in manifest.splits]
    repairs = [row([text(rule), f"{count:,}"]) for rule, count in rows.repaired.items()]
    total = row(["<td><b>rows in</b></td>", f"<b>{rows.rows_in:,}</b>", ""])
    return (
        f"<h2>Data</h2><p>{rows.rows_in:,} rows in = {rows.published:,} published + {rows.duplicates:,} duplicates"
        f" + {rows.rejected:,} rejected.</p><div class='bar'>{bar}</div>"
        f"<div class='grid2'><div>{table(['', 'rows', 'share'], [*legend, total])}</div>"
        f"<div>{table(['split', 'rows', 'classes'], splits)}</div></div>"
        + (table(["rejected because", "rows"], reasons) if reasons else "")
        + (table(["changed by rule", "values"], repairs) if repairs else "")
    )


def _classes(manifest: Manifest, split: str) -> str:
    """The share of each class, of several labels of each (``late=1``), among the rows of a split."""
    counts, rows = manifest.class_counts.get(split, {}), max(1, manifest.rows(split))
    return text(" · ".join(f"{name}: {count / rows:.1%}" for name, count in sorted(counts.items())))


def _seconds(content: Content) -> str:
    seconds = {name: float(value) for name, value in (content.result.get("seconds") or {}).items()}
    if not seconds:
        return ""
    longest = max([*seconds.values(), 1e-9])
    reused = content.result.get("reused") or []
    rows = [
        row(
            [
                text(name),
                f"{value:.1f} s",
                f"<td class='left'>{'reused' if name in reused else _meter(value / longest)}</td>",
            ]
        )
        for name, value in seconds.items()
    ]
    total = row(["<td><b>all</b></td>", f"<b>{sum(seconds.values()):.1f} s</b>", ""])
    return f"<h2>Time</h2>{table(['stage', 'seconds', ''], [*rows, total])}"


def _configuration(content: Content) -> str:
    versions = content.manifest.versions if content.manifest else {}
    rows = [row([text(name), f"<td class='left'>{text(version)}</td>"]) for name, version in sorted(versions.items())]
    configuration = (
        f"<details><summary>config.yaml, all values</summary><pre>{text(content.configuration)}</pre></details>"
        if content.configuration
        else ""
    )
    packages = f"<details><summary>Versions</summary>{table(['package', ''], rows)}</details>" if rows else ""
    return f"<h2>Configuration</h2>{configuration}{packages}" if configuration or packages else ""
