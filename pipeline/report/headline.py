"""DRIVER. The report's top: which run this is, who wins, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.inference.evaluate import SHOWN_AS, Evaluation
from pipeline.metrics import LOWER_IS_BETTER, LabelType
from pipeline.report.content import Content
from pipeline.report.markup import metric, text

_TILES: dict[LabelType, tuple[str, ...]] = {
    "binary": ("roc_auc", "pr_auc", "accuracy", "log_loss"),
    "multiclass": ("accuracy", "f1", "log_loss"),
    "regression": ("rmse", "mae", "r2"),
}


def headline(content: Content) -> str:
    """Name, error and verdict; then the metrics that matter most, each beside the best baseline's."""
    verdict = _verdict("failed", str(content.result["error"])) if content.result.get("error") else ""
    tiles = ""
    if (evaluation := content.evaluation) is None:
        verdict += _verdict("lost", "There is no evaluation.")
    else:
        verdict += _verdict("" if evaluation.wins else "lost", evaluation.verdict)
        tiles = "".join(_tile(name, evaluation) for name in _TILES[evaluation.label_type])
    return (
        f"<header><h1>{text(content.name)}</h1><div class='sub'>{' · '.join(_origin(content))}</div>{verdict}</header>"
        + (f"<div class='tiles'>{tiles}</div>" if tiles else "")
    )


def _verdict(style: str, said: str) -> str:
    return f"<p class='verdict {style}'>{text(said)}</p>"


def _origin(content: Content) -> list[str]:
    """What came of the run, what it was made from, where it is and how it was trained."""
    model, dataset = content.result.get("model") or {}, content.result.get("dataset") or {}
    registered = f"{model['name']} version {model['version']}" if model.get("name") else "not registered"
    return [
        text(registered),
        f"dataset <code>{text(str(dataset.get('content_id') or '–')[:12])}</code>",
        f"<code>{text(content.url)}</code>",
        *_stack(content.result.get("run") or {}),
    ]


def _stack(run: Mapping[str, Any]) -> list[str]:
    """What carried the training out."""
    if not run.get("collective"):
        return []
    ranks = {"none": "one rank"}.get(run["collective"], f"ranks over {run['collective']}")
    shared = " in shared memory" if run.get("shared_memory") else ""
    return [text(f"{ranks}{shared}, read with {run['reader']}")]


def _tile(name: str, evaluation: Evaluation) -> str:
    return (
        f"<div class='tile'><span>{SHOWN_AS.get(name, name)}</span><b>{metric(evaluation.metrics.get(name))}</b>"
        f"<span>{_beside_rival(name, evaluation)}</span></div>"
    )


def _beside_rival(name: str, evaluation: Evaluation) -> str:
    """How far the model is from the best baseline."""
    own, rival = evaluation.metrics.get(name, math.nan), evaluation.best_baseline(name)
    if rival is None or math.isnan(own):
        return ""
    lead = own - rival.metrics[name]
    style = "" if lead == 0 else "good" if (lead < 0) == (name in LOWER_IS_BETTER) else "bad"
    return f"<em class='{style}'>{_signed(lead, own)}</em> against the {text(rival.name)}"


def _signed(lead: float, own: float) -> str:
    """A difference with the places that `pipeline.inference.evaluate.number` shows of the value."""
    return f"{lead:+.4f}" if own == 0 or 1e-2 <= abs(own) < 100 else f"{lead:+,.3g}"
