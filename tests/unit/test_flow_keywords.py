"""What a program says by keywords counts, beside a configuration as beside a dataset or a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import flow
from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, UsageError
from pipeline.task import UserCode
from tests.small_model import small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = small_dataset(str(tmp_path_factory.mktemp("data")), 100)
    semantic = {"features": {"amount": {"type": "numeric"}}, "label": {"column": "late"}}
    return replace(made, manifest=replace(made.manifest, semantic=semantic))


@pytest.fixture
def config(tmp_path: Path, dataset: Dataset) -> PipelineConfig:
    return parse_config(
        {
            "features": {"amount": {"type": "numeric"}},
            "label": {"column": "late"},
            "dataset": {"url": dataset.url},
            "model": {"name": "tabular", "options": {"hidden": [8]}},
            "training": {"run_url": "run", "seed": 7, "optimizer": {"name": "SGD", "learning_rate": 0.5}},
            "cluster": {"master": "local[2]"},
        },
        str(tmp_path),
    )


def trained(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **keywords: Any) -> tuple[PipelineConfig, UserCode]:
    """The configuration and the code that the stage is given."""
    asked: list[Any] = []
    monkeypatch.setattr(flow, "train_stage", lambda config, dataset, session, code, **_: asked.extend((config, code)))
    flow.train(*arguments, **keywords)
    return asked[0], asked[1]


def test_without_keywords_training_is_that_of_the_configuration(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained(monkeypatch, config)[0] == config
    unnamed = parse_config(config.model_dump(by_alias=True, exclude={"model"}))
    assert trained(monkeypatch, unnamed)[0].model == unnamed.model


def test_keywords_are_laid_over_the_configuration_of_a_training(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keywords = {"epochs": 5, "optimizer": {"learning_rate": 0.1}, "options": {"dropout": 0.5}}
    found, _ = trained(monkeypatch, config, **keywords, cluster={"num_proc": 2}, tracking={"experiment": "tries"})
    assert (found.training.epochs, found.training.seed) == (5, 7)
    assert found.training.run_url == config.training.run_url
    assert (found.training.optimizer.name, found.training.optimizer.learning_rate) == ("SGD", 0.1)
    assert found.model.options == {"hidden": [8], "dropout": 0.5}
    assert (found.cluster.master, found.cluster.num_proc) == ("local[2]", 2)
    assert found.tracking.experiment == "tries"


def test_a_named_model_takes_the_place_of_the_configured_one_with_its_options(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, code = trained(monkeypatch, config, model="linear")
    assert (found.model.name, found.model.options, code.model) == ("linear", {}, None)


def test_a_training_on_a_dataset_is_described_by_the_same_keywords(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "run")
    found, code = trained(monkeypatch, dataset, optimizer=print, epochs=5, run_url=run, options={"hidden": [4]})
    assert (found.training.epochs, found.training.run_url) == (5, run)
    assert (found.model.name, found.model.options, code.optimizer) == ("tabular", {"hidden": [4]}, print)
    assert found.dataset.url == dataset.url


def test_an_unknown_keyword_is_refused_in_both(config: PipelineConfig, dataset: Dataset) -> None:
    for source in (config, dataset):
        with pytest.raises(ConfigError, match=r"training\.epoch is unknown; did you mean training\.epochs"):
            flow.train(source, epoch=5)


def test_sections_are_laid_over_the_configuration_of_a_preparation(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[PipelineConfig] = []
    monkeypatch.setattr(flow, "prepare_stage", lambda config, session, **_: (asked.append(config), False))
    flow.prepare(config, split={"test": 0.3})
    assert asked[0].split.test == 0.3
    assert asked[0].features == config.features
    with pytest.raises(UsageError, match="two configurations"):
        flow.prepare(config, config)


@pytest.mark.parametrize("table", [pd.DataFrame({"amount": [1]}), {"source": {}}, "orders.csv", None])
def test_a_table_that_is_no_frame_of_spark_is_refused_with_the_way_to_make_one(table: Any) -> None:
    kind = type(table)
    for verb, stage in (("prepare", flow.prepare), ("score", lambda one: flow.score(one, "model"))):
        with pytest.raises(UsageError) as caught:
            stage(table)
        said = f"{verb} is given a {kind.__module__}.{kind.__qualname__}; expected a Spark DataFrame"
        assert said in str(caught.value)
        assert str(caught.value).endswith("make one by spark.createDataFrame")
