"""The report is one file that needs nothing else, shows what was measured, and runs nothing that came from data."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pipeline import storage
from pipeline.dataset import version_url
from pipeline.errors import StorageError
from pipeline.inference.evaluate import Evaluation, Measured, SliceValue
from pipeline.metrics import METRICS, Binary, Measure, Multiclass, Regression
from pipeline.report import render_report, render_table
from pipeline.report.charts import Axis, Line, line_chart
from tests.small_model import small_dataset

EVIL = "<script>alert(1)</script>\"'&"


def measured(name: str, seed: int, note: str = "") -> Measured:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, 400)
    probability = np.clip(0.3 * label + random.random(400) * 0.7, 0, 1)
    return Measured.of(name, note, Binary(), Binary().sums(label, probability))


@pytest.fixture(scope="module")
def evaluation():
    return Evaluation(
        model="a" * 64,
        dataset="b" * 64,
        rows=400,
        measured=measured("model", 0),
        baselines=(measured("majority class", 1), measured("gradient-boosted trees", 2, f"on rows {EVIL}")),
        slices=(SliceValue("carrier", EVIL, 30, 3, {"accuracy": 0.9, "roc_auc": math.nan}),),
    )


@pytest.fixture(scope="module")
def run_url(tmp_path_factory, evaluation):
    folder = tmp_path_factory.mktemp("report")
    dataset = small_dataset(str(folder / "data"), 200)
    profile = {
        "of": "train rows",
        "columns": {
            "distance": {
                "kind": "number",
                "rows": 2000,
                "missing": 500,
                "distinct": 1500,
                "min": 1,
                "mean": 2.5,
                "max": 9,
            },
            "left": {"kind": "timestamp", "rows": 9, "missing": 0, "distinct": 9, "min": 0.0, "mean": 6e7, "max": 9e8},
            "carrier": {"kind": "string", "rows": 10, "missing": 2, "distinct": 4, "top": [[EVIL, 4], ["b", 2]]},
            "person": {"kind": "string", "rows": 200, "missing": 0},
        },
        "drift": [f"column {EVIL} is new"],
    }
    version = version_url(dataset.url, dataset.content_id)
    storage.write_json(f"{version}/profile.json", "profile", 1, profile)
    url = str(folder / "flights & co")
    storage.write_json(f"{url}/evaluation.json", *Evaluation.FORMAT, evaluation.to_json())
    rates = {"rows_per_second": 12345.6, "data_wait_share": 0.05, "communication_share": 0.01, "checkpoint_share": 0.0}
    losses = [
        {"step": n, "train_loss": 1 / n, "validation_loss": 1.1 / n, "validation_roc_auc": 0.7} for n in (1, 2, 3)
    ]
    lines = [{**loss, **rates} for loss in losses]
    storage.write_json(f"{url}/training.json", "training", 1, {"result": {"best_epoch": 2}})
    storage.write_bytes(f"{url}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    storage.write_bytes(f"{url}/config.yaml", f"source: {{query: {EVIL}}}".encode())
    result = {
        "seconds": {"prepare": 10.5, "train": 20.0},
        "reused": ["prepare"],
        "dataset": {"url": dataset.url, "content_id": dataset.content_id},
        "model": {"name": EVIL, "version": "3"},
    }
    storage.write_json(f"{url}/result.json", "result", 1, result)
    return url


class Balanced(HTMLParser):
    """Fails on tags that are not closed, and collects what a page might load or run."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attributes):
        self.seen |= {tag, *(name for name, _ in attributes)}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen |= {tag, *(name for name, _ in attributes)}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_network_and_no_script(run_url):
    page = render_report(run_url)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "img", "iframe", "src", "href", "onload", "onerror"}
    assert not re.search(r"https?://|url\(|@import", page)
    assert len(page) < 300_000


def test_nothing_from_data_or_configuration_is_html(run_url, evaluation):
    assert "<script" not in render_report(run_url)
    assert "<script" not in render_report(run_url, {"error": EVIL, "dataset": {"url": EVIL}, "seconds": {EVIL: 1}})
    assert "<script" not in render_table(evaluation)
    assert "&lt;script&gt;" in render_report(run_url)


def test_the_page_shows_every_part(run_url, evaluation):
    page = render_report(run_url)
    for heading in ("Learning curves", "Ranking", "Errors", "Slices", "Data", "Time", "Configuration"):
        assert f"<h2>{heading}</h2>" in page
    assert evaluation.verdict in page
    assert f"{evaluation.metrics['roc_auc']:.4f}" in page
    assert "330 rows in = 300 published + 10 duplicates + 20 rejected." in page
    assert "label is null" in page
    assert "reused" in page
    assert "nan" not in re.sub(r"<style>.*</style>", "", page)


def test_the_metrics_stand_beside_those_of_the_best_baseline(evaluation, run_url):
    lead = evaluation.metrics["roc_auc"] - evaluation.best_baseline("roc_auc").metrics["roc_auc"]
    style = "good" if evaluation.wins else "bad"
    assert f"<em class='{style}'>{lead:+.4f}</em> against the gradient-boosted trees" in render_report(run_url)


def test_the_epoch_whose_weights_the_model_has_is_marked_whichever_was_best_by_the_loss(run_url):
    page = render_report(run_url)
    assert "The filled points are epoch 2, whose weights the model has." in page
    assert re.findall(r'class="marked".*?<title>(.*?)</title>', page) == ["validation: 2, 0.55", "validation: 2, 0.7"]


def test_time_is_shown_by_stage_and_for_what_ranks_waited(run_url):
    shown = re.sub("<[^>]*>", " ", render_report(run_url).split("<h2>Time</h2>")[1].split("<h2>")[0])
    shown = " ".join(shown.split())
    assert "prepare 10.5 s reused train 20.0 s all 30.5 s" in shown
    assert "12,346 rows a second, and of that time waited 5.0% for data, 1.0% for each other, 0.0% for check" in shown


def test_a_run_that_failed_early_still_gets_a_page(tmp_path):
    page = render_report(str(tmp_path / "run"), {"error": "train: it broke", "seconds": {"prepare": 1.0}})
    assert "train: it broke" in page
    assert "There is no evaluation." in page


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json", "result.json", "training.json"])
def test_a_broken_file_of_a_run_is_named(tmp_path, name):
    (tmp_path / name).write_text('{"format": "evaluation/1"}\n{' if name != "evaluation.json" else "{}")
    with pytest.raises(StorageError, match=name):
        render_report(str(tmp_path))


def test_the_best_value_of_each_metric_is_marked_and_never_that_of_the_majority_class(evaluation):
    table = render_table(evaluation)
    rows = {row.split("</td>")[0].rsplit(">", 1)[1]: row for row in table.split("<tr")[2:]}
    assert 'class="best"' not in rows["majority class"]
    assert sum(row.count('class="best"') for row in rows.values()) >= 7


def of_type(label_type, measure: Measure, answers, classes=()) -> Evaluation:
    """An evaluation of three models with these answers to the same labels."""
    label = np.arange(60) % 3
    everyone = [Measured.of(name, "", measure, measure.sums(label, answer)) for name, answer in answers.items()]
    slices = (SliceValue("carrier", "AA", 30, None, everyone[0].metrics),)
    return Evaluation("a" * 64, "b" * 64, 60, everyone[0], everyone[1:], slices, label_type, classes)


def page_of(evaluation: Evaluation, folder) -> str:
    storage.write_json(f"{folder}/run/evaluation.json", *Evaluation.FORMAT, evaluation.to_json())
    page = render_report(f"{folder}/run", {})
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "ROC" not in page
    return page


def test_a_model_of_several_classes_is_shown_with_a_confusion_matrix_of_their_names(tmp_path):
    sure, unsure = np.eye(3)[np.arange(60) % 3] * 0.7 + 0.1, np.full((60, 3), 1 / 3)
    answers = {"model": sure, "majority class": unsure}
    evaluation = of_type("multiclass", Multiclass(3), answers, ("cat", EVIL, "dog"))
    assert evaluation.verdict == "The model wins: log loss 0.2231, the majority class 1.0986."
    page = page_of(evaluation, tmp_path)
    assert "predicted cat" in page
    assert page.count("<b>20</b>") == 3
    assert "<script" not in page
    many = of_type("multiclass", Multiclass(30), {"model": np.full((60, 30), 1 / 30)}, tuple(map(str, range(30))))
    assert "<h2>Errors</h2>" not in page_of(many, tmp_path)


def test_a_model_of_numbers_is_shown_with_predicted_against_actual_values(tmp_path):
    actual = np.arange(60) % 3
    answers = {"model": actual + 250.0, "mean": np.full(60, 1.0), "ridge regression": actual + 0.5}
    evaluation = of_type("regression", Regression((0.0, 2.0)), answers)
    assert evaluation.verdict == "The ridge regression wins: RMSE 0.5000, the model 250."
    page = page_of(evaluation, tmp_path)
    assert "Predicted against actual, model" in page
    assert "Predicted against actual, ridge regression" in page
    assert "20 rows</title>" in page


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.69, 0.7512), (1, 5), (-3, 120_000), (0.1, 0.1001)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = Axis("x", low, high).ticks()
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)


def test_no_tick_lies_between_two_epochs():
    assert Axis("epoch", 0.8, 2.2, whole=True).ticks() == [1, 2]


def test_a_chart_keeps_its_points_inside_the_frame_and_tells_their_values():
    chart = line_chart([Line("a < b", [(1, 0.5), (2, 9)], "model", dots=True)], Axis("x", 1, 2), Axis("y", 0, 1), "t")
    assert "a &lt; b: 2, 9" in chart
    assert [float(y) for y in re.findall(r'cy="([\d.]+)"', chart)] == [145.0, 30.0]


def several(label_type: str, values: dict[str, tuple[float, float]], metric: str) -> Evaluation:
    """An evaluation of labels a and b: who -> what it reaches of each, one metric alone."""

    def reached(name: str) -> Measured:
        a, b = values[name]
        metrics = dict.fromkeys(METRICS[label_type], 0.5) | {metric: (a + b) / 2, f"{metric}_a": a, f"{metric}_b": b}
        return Measured(name, "", metrics, [], {})

    model, *baselines = map(reached, values)
    return Evaluation("a" * 64, "b" * 64, 10, model, tuple(baselines), (), label_type, labels=("a", "b"))


def test_several_labels_have_a_row_each_beside_the_best_baseline_for_it(tmp_path):
    values = {"model": (0.9, 0.6), "majority class": (0.5, math.nan), "logistic regression": (0.8, 0.7)}
    evaluation = several("binary", values, "roc_auc")
    storage.write_json(str(tmp_path / "evaluation.json"), *Evaluation.FORMAT, evaluation.to_json())
    page = render_report(str(tmp_path))
    _, _, section = page.partition("<h2>Labels</h2>")
    first, second = re.findall(r"<tr><td>([ab])</td>.*?<td>([0-9.]+ \([^)]*\))</td></tr>", section)
    assert (first, second) == (("a", "0.8000 (logistic regression)"), ("b", "0.7000 (logistic regression)"))
    assert "plain means over 2 labels" in page
    assert "<h2>Labels</h2>" not in render_report(str(tmp_path / "nothing"))


def test_labels_of_different_units_are_compared_by_the_mean_of_what_has_no_unit(tmp_path):
    evaluation = several("regression", {"model": (0.9, 0.5), "mean": (0.0, 0.0), "ridge regression": (0.6, 0.6)}, "r2")
    assert evaluation.verdict == "The model wins: mean R² 0.7000, the ridge regression 0.6000."
    again = Evaluation.from_json(json.loads(json.dumps(evaluation.to_json())))
    assert (again.labels, again.decisive) == (["a", "b"], "r2")
    before = {key: value for key, value in evaluation.to_json().items() if key != "labels"}
    assert Evaluation.from_json(before).labels == ()


def test_columns_are_shown_with_what_is_missing_how_many_values_there_are_and_which(run_url) -> None:
    shown = re.sub("<[^>]*>", " ", render_report(run_url).split("<h2>Columns</h2>")[1].split("<h2>")[0])
    lines = " ".join(shown.split())
    assert "distance number 25.00% 1,500 min 1 · mean 2.5 · max 9" in lines
    assert "left timestamp 0.00% 9 min 1970-01-01T00:00:00 · mean 1970-01-01T00:01:00" in lines
    assert "carrier string 20.00% 4 &lt;script&gt;" in lines
    assert ": 50.0% · b: 25.0%" in lines
    assert "person string 0.00% –" in lines
    assert "Unlike the version before column &lt;script&gt;" in lines
