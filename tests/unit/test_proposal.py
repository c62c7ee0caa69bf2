"""`pipeline init` says what it chose and what comes next, and looks before it starts Spark."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline.launch.session as session_module
import pipeline.preparation.propose as propose_module
from pipeline import cli
from pipeline.config import load_config, parse_config
from pipeline.preparation.dialect import _of_names
from pipeline.preparation.proposal import Proposal

PROPOSAL = Proposal(
    path="orders.csv",
    format="csv",
    options={"sep": ";"},
    schema="`order id` int, `unit price` double, unit_price int, `on` int, note string, late int",
    label="late",
    label_type="binary",
    ids=("order id",),
    split="{by: hash, validation: 0.1, test: 0.1}",
    features={name: {"type": "numeric"} for name in ("unit price", "unit_price", "on")},
    left_out={"note": "nearly all values differ"},
    lacking=0.231,
)


def test_the_text_is_a_configuration_whatever_columns_are_called_and_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "pipeline.yaml"
    file.write_text(
        Proposal(**{**PROPOSAL.__dict__, "path": str(tmp_path / "orders.csv")}).text(str(tmp_path / "conf"))
    )
    config = load_config(str(file))
    assert {config.features[name].column or name for name in config.features} == {"unit price", "unit_price", "on"}
    assert config.source.inputs["table"].path == [str(tmp_path / "orders.csv")]
    assert config.source.inputs["table"].options == {"sep": ";"}
    assert config.clean.max_rejected_fraction == 0.26, "a quarter of the rows has no label"
    assert "# left out: note, nearly all values differ" in file.read_text()
    assert yaml.safe_load(PROPOSAL.text("conf"))["source"]["inputs"]["table"]["path"] == "../orders.csv"


def test_no_two_columns_of_what_is_made_have_one_name(tmp_path: Path) -> None:
    numeric, time = {"type": "numeric", "indicator": True}, {"type": "timestamp", "parts": ["hour"]}
    features = {"x": numeric, "x_missing": numeric, "t": time, "t_hour": numeric, "late": numeric, "x missing": numeric}
    proposal = replace(PROPOSAL, features=features, label="t_hour__2", ids=("late",))
    config = parse_config(yaml.safe_load(proposal.text(str(tmp_path))), str(tmp_path))
    assert {name: feature.column for name, feature in config.features.items()} == {
        "x": None,
        "x_missing__2": "x_missing",
        "t": None,
        "t_hour__3": "t_hour",
        "late__2": "late",
        "x_missing__3": "x missing",
    }


def test_rare_classes_are_named_and_what_their_rows_and_others_lack(tmp_path: Path) -> None:
    proposal = replace(PROPOSAL, label_type="multiclass", classes=("a", "b"), rare=("c",), lacking=0.1)
    text = proposal.text(str(tmp_path))
    assert "label: {column: late, type: multiclass, classes: [a, b]}   # not c, of which a split has no row" in text
    assert "clean: {max_rejected_fraction: 0.12}   # 10% of the rows lack label or time, or are of rare classes" in text
    assert proposal.lines()[0] == "label: late (multiclass, without c)"


def test_separators_are_found_whatever_the_length_of_lines() -> None:
    names = [f"name {place}" for place in range(20_000)]
    for separator, options in ((",", {}), (";", {"sep": ";"})):
        assert _of_names(separator.join(names)) == options
        assert _of_names(f"{separator.join(names)}{separator}") == {**options, "enforceSchema": "true"}
    assert _of_names("\n".join(["a;b", '1;"open', *("b" * 999 for _ in range(200))])) == {"sep": ";"}
    assert _of_names("a" * 200_000) == {}


def test_outputs_are_placed_where_no_input_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "orders"
    folder.mkdir()
    proposal = replace(PROPOSAL, path=str(folder))
    for place, expected in ((tmp_path, "workspace/orders"), (folder, "../orders-workspace/orders")):
        assert yaml.safe_load(proposal.text(str(place)))["dataset"]["url"] == expected


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `pipeline init` in a folder of its own; gives exit code, what it showed, and RESULT."""

    @contextlib.contextmanager
    def session(cluster: Any, workspace: str, **_: Any) -> Iterator[None]:
        (Path(workspace) / "spark.log").write_text("said")
        yield

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "_configure_logging", lambda _: None)
    monkeypatch.setattr(session_module, "spark_session", session)
    monkeypatch.setattr(propose_module, "propose", lambda *_: PROPOSAL)

    def run(*words: str) -> tuple[int, list[str], dict[str, Any]]:
        code = cli.main(["init", *words])
        *shown, result = capsys.readouterr().out.splitlines()
        return code, shown, json.loads(result.removeprefix("RESULT "))

    return run


def test_what_was_chosen_is_shown_with_the_next_command(init: Any, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("late\n0\n")
    code, shown, result = init("orders.csv", "my pipeline.yaml")
    assert code == 0
    assert shown == [
        "label: late (binary)",
        "id: order id",
        "split: {by: hash, validation: 0.1, test: 0.1}",
        "features: unit price, unit_price, on",
        "left out: note (nearly all values differ)",
        "next: pipeline run 'my pipeline.yaml' --dry-run, then pipeline run 'my pipeline.yaml'",
    ]
    assert (result["label"], result["id"], result["next"]) == ("late", ["order id"], "pipeline run 'my pipeline.yaml'")
    assert {path.name for path in tmp_path.iterdir()} == {"orders.csv", "my pipeline.yaml"}


def test_a_missing_table_is_66_and_a_taken_name_73_before_spark_starts(
    init: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "spark_session", lambda *_: pytest.fail("Spark was started"))
    code, _, result = init("nothing.csv")
    assert (code, "nothing.csv is missing; expected a table" in result["error"]) == (66, True)
    (tmp_path / "pipeline.yaml").write_text("mine")
    code, _, result = init("pipeline.yaml")
    assert (code, "pipeline.yaml exists" in result["error"]) == (73, True)
    assert (tmp_path / "pipeline.yaml").read_text() == "mine"
