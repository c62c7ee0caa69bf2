"""What a configuration lacks for the stages that are to run is said before Spark starts, all of it at once."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.before_stages import check_stages
from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import ConfigError


def configured(**sections: Any) -> PipelineConfig:
    return parse_config(
        {
            "source": {"inputs": {"table": {"path": "/t.csv", "options": {"comment": "${env:NOT_SET}"}}}},
            "features": {"age": {"type": "numeric"}},
            "label": {"column": "late"},
            "dataset": {"url": "/data"},
            "training": {"run_url": "/run"},
            "tracking": {"uri": "http://${env:NOT_SET_EITHER}@tracker"},
            **sections,
        }
    )


def refused(last: str, **sections: Any) -> list[str]:
    try:
        check_stages(configured(**sections), last)
    except ConfigError as error:
        return [offence.split("; ")[0] for offence in error.offences]
    return []


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_SET", "#")
    monkeypatch.setenv("NOT_SET_EITHER", "me")


@pytest.mark.parametrize("last", ["prepare", "run"])
def test_stages_that_read_tables_need_inputs(last: str) -> None:
    assert refused(last, source={}) == ["source.inputs is missing"]
    assert refused("train", source={}) == refused("evaluate", source={}) == refused(last) == []


def test_variables_of_the_stages_that_run_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET")
    monkeypatch.delenv("NOT_SET_EITHER")
    source = "source.inputs.table.options.comment names ${env:NOT_SET}, which is not set"
    tracking = "tracking.uri names ${env:NOT_SET_EITHER}, which is not set"
    found = {last: refused(last) for last in ("prepare", "train", "evaluate", "run")}
    assert found == {"prepare": [source], "train": [tracking], "evaluate": [tracking], "run": [source, tracking]}


def test_names_of_models_and_optimizers_are_looked_up_before_hours_of_preparation() -> None:
    training = {"run_url": "/run", "optimizer": {"name": "Adamm"}, "best_by": "beauty"}
    assert refused("run", training=training, model={"name": "tabular", "options": {"hiden": [3]}}) == [
        "training.best_by is beauty",
        "model.options.hiden is not an option of tabular",
        "training.optimizer.name is Adamm",
    ]
    assert refused("run", model={"factory": "tests.nowhere:model"}) == ["model.factory is tests.nowhere:model"]


@pytest.mark.parametrize(
    ("optimizer", "offence"),
    [
        ({"name": "SGD", "options": {"momentun": 0.9}}, "training.optimizer.options are not understood by SGD"),
        ({"name": "LBFGS"}, "LBFGS"),
        ({"factory": "tests.nowhere:optimizer"}, "training.optimizer.factory is tests.nowhere:optimizer"),
    ],
)
def test_an_optimizer_that_cannot_be_made_is_refused(optimizer: dict[str, Any], offence: str) -> None:
    (found,) = refused("run", training={"run_url": "/run", "optimizer": optimizer})
    assert offence in found
