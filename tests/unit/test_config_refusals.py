"""Configurations that cannot be meant: refused at once, all together, in the words of who wrote them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import load_config, parse_config
from pipeline.errors import ConfigError, InputMissingError
from pipeline.run_folder import config_yaml


def offences(**sections: Any) -> list[str]:
    values: dict[str, Any] = {
        "features": {"age": {"type": "numeric"}},
        "label": {"column": "late"},
        "dataset": {"url": "/data"},
        "training": {},
    }
    values |= sections
    if isinstance(values["training"], dict):
        values["training"] = {"run_url": "/run", **values["training"]}
    try:
        parse_config(values)
    except ConfigError as error:
        return list(error.offences)
    return []


def numeric(**options: Any) -> dict[str, Any]:
    return {"features": {"age": {"type": "numeric", **options}}}


def rule(**options: Any) -> dict[str, Any]:
    return {"clean": {"rules": [{"column": "age", **options}]}}


def by_time(validation_from: Any, test_from: Any) -> dict[str, Any]:
    return {"split": {"by": "time", "key": "day", "validation_from": validation_from, "test_from": test_from}}


@pytest.mark.parametrize(
    ("sections", "offence"),
    [
        (numeric(clip=[0.9, 0.1]), "features.age.clip: [0.9, 0.1] are not ascending; expected the lower"),
        (rule(min=3, max=1), "clean.rules.0: min and max are 3 and 1; expected them in this order"),
        (rule(min_length=3, max_length=1), "clean.rules.0: min_length and max_length are 3 and 1; expected"),
        (rule(pattern="("), "clean.rules.0.pattern: ( is no regular expression: missing ), unterminated"),
        ({"label": {"column": "y", "type": "regression", "min": 2, "max": 1}}, "label: min and max are 2 and 1"),
        ({"gate": {"roc_auc": {"min": 0.9, "max": 0.8}}}, "gate.roc_auc: min and max are 0.9 and 0.8"),
        ({"gate": {"roc_auc": {"min": math.nan}}}, "gate.roc_auc.min is nan; expected a finite number"),
        ({"gate": {"roc_auc": {"min": 7}}}, "gate.roc_auc.min is 7; expected at most 1, which nothing exceeds"),
        ({"gate": {"log_loss": {"max": -1}}}, "gate.log_loss.max is -1; expected at least 0"),
        ({"training": {"optimizer": {"learning_rate": math.inf}}}, "training.optimizer.learning_rate is inf; expected"),
        (
            {"training": {"run_url": "/data/"}},
            "training.run_url is /data/, which is dataset.url too",
        ),
        ({"cluster": {"master": "local[x]"}}, "cluster.master: 'local[x]' is no master; expected local, local[cores]"),
        ({"cluster": {"num_proc": 0}}, "cluster.num_proc is 0; expected auto or at least 1"),
        ({"cluster": {"num_proc": True}}, "cluster.num_proc is true; expected auto or a whole number"),
        (
            by_time("hello", "2013-10-01"),
            "split.validation_from: 'hello' is no moment; expected a date",
        ),
        *(
            (by_time(text, "2099"), f"split.validation_from: {text!r} is no moment; expected a date")
            for text in (
                "2024-Jan-05",
                "2024-01-05 6am",
                "2024-W03",
                "20240105",
                "2024-02-30",
                "2024-01-05 06:00 Europe/Berlin",
            )
        ),
        (
            {"features": {"age": {"type": "elapsed", "since": "2024-Jan-05"}}},
            "features.age.since: '2024-Jan-05' is no moment; expected a date",
        ),
        (
            {"features": {"seen": {"type": "timestamp", "parts": ["hour"], "missing": "sometimes"}}},
            "features.seen.missing: 'sometimes' is no moment; expected a date",
        ),
        ({"features": {"paid": {"type": "boolean", "missing": "maybe"}}}, "features.paid.missing is 'maybe'; expected"),
        (rule(min=1, action="null", default=1), "clean.rules.0: default is set, but action is null; expected action"),
        (
            rule(min=1, action="null", max_fraction=1),
            "clean.rules.0: max_fraction is set, but action is null; expected",
        ),
        (rule(min=1000000.4, max=1000000), "clean.rules.0: min and max are 1000000.4 and 1000000; expected them in"),
        (by_time("2013-10-01", "2013-9-01"), "split: validation_from is 2013-10-01; expected earlier than 2013-9-01"),
        ({"training": {"epochs": "3"}}, "training.epochs is '3'; expected a whole number"),
        ({"training": {"epochs": True}}, "training.epochs is true; expected a whole number"),
        ({"training": {"global_batch_size": 64.0}}, "training.global_batch_size is 64.0; expected a whole number"),
        ({"training": {"clip_norm": "1"}}, "training.clip_norm is '1'; expected a number"),
        ({"dataset": "foo"}, "dataset is 'foo'; expected a section with keys"),
        ({"training": 5}, "training is 5; expected a section with keys"),
        ({"gate": {"roc_auc": 0.7}}, "gate.roc_auc is 0.7; expected a section with keys"),
        ({"training": {"epochs": None}}, "training.epochs is empty; expected a whole number"),
        ({"training": {"epochs": {"a": 1}}}, "training.epochs is a section with keys; expected a whole number"),
        ({"training": {"class_weights": {"1": -2}}}, "training.class_weights.1 is -2; expected at least 0"),
        ({"training": {"class_weights": {0: 2}}}, "training.class_weights has the key 0; expected text; quote it"),
        ({"model": {"factory": "mine"}}, "model.factory is 'mine'; expected package.module:function"),
        ({"clean": {"keep": "first"}}, "clean.keep is 'first'; expected `first by <column>` or `last by <column>`"),
        ({"features": {True: {"type": "numeric"}}}, "features has the key true; expected text; quote it"),
        ({"features": {"a b": {"type": "numeric"}}}, "features.a b: not usable as a name; expected letters, digits"),
        ({"features": {}}, "features is {}; expected at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(sections: dict[str, Any], offence: str) -> None:
    (found,) = offences(**sections)
    assert found.startswith(offence)


@pytest.mark.parametrize(
    "sections",
    [
        numeric(clip=[0, 1]),
        rule(min=1, max=1),
        rule(pattern=r"\p{L}++[a-z&&[^b]]"),
        {"gate": {"log_loss": {"max": 0.5, "min": 2e-1}}},
        {"cluster": {"master": "local[*]", "num_proc": 2}},
        {"cluster": {"master": "local-cluster[2,1,1024]"}},
        by_time("2013-9-01", "2013-10-01 06:00"),
        by_time("2013-10-01T00:00:00+02:00", "2013-10-01"),
        by_time("1200-10", "9999-12-31 23:59:59.999999Z"),
        {"dataset": {"url": Path("/data"), "keep": ("day",)}},
        {"training": {"epochs": np.int64(3), "clip_norm": np.float32(1)}},
        {"training": {"clip_norm": 1, "optimizer": {"learning_rate": 1}}},
    ],
)
def test_what_can_be_meant_is_taken(sections: dict[str, Any]) -> None:
    assert offences(**sections) == []


def test_slices_are_columns_that_the_dataset_keeps() -> None:
    source = {"inputs": {"t": {"path": "/t.csv"}}, "id": ["number"]}
    dataset, evaluation = {"url": "/data", "keep": ["day"]}, {"slices": ["number", "dya"]}
    assert offences(source=source, dataset=dataset, evaluation=evaluation) == [
        "evaluation.slices names dya; expected columns of dataset.keep or source.id: day, number; "
        "add what is missing to dataset.keep"
    ]
    assert offences(dataset=dataset, evaluation=evaluation) == []
    source["sensitive"], evaluation["slices"] = ["number"], ["day", "number"]
    assert offences(source=source, dataset=dataset, evaluation=evaluation) == [
        "evaluation.slices would show values of number, of source.sensitive; expected other columns"
    ]


def test_checks_over_several_keys_find_what_they_find_beside_keys_that_are_wrong() -> None:
    found = offences(
        features={"age": {"type": "numeric", "scale": "no"}, "a b": {"type": "numeric"}, "late": {"type": "numeric"}},
        split={"by": "hash", "validation": 0.6, "test": 0.6, "salt": 5},
        cluster={"num_proc": 2, "min_proc": 3, "launcher": "bogus"},
        gate={"rmse": {"max": 1}, "roc_auc": {}},
        training={"epochs": 0},
    )
    assert sorted(offence.split(";")[0] for offence in found) == [
        "cluster.launcher is 'bogus'",
        "cluster: min_proc is 3",
        "features.a b: not usable as a name",
        "features.age.scale is 'no'",
        "features.late is the label late",
        "gate names rmse, but label.type is binary",
        "gate.roc_auc: neither min nor max is set",
        "split.salt is 5",
        "split: validation + test is 1.2",
        "training.epochs is 0",
    ]


def test_what_only_follows_from_a_wrong_key_is_not_named() -> None:
    assert offences(label={"column": "late", "type": "regresion"}, gate={"rmse": {"max": 1}}) == [
        "label.type is 'regresion'; expected binary, multiclass or regression"
    ]
    assert offences(split={"by": "group", "key": 5}) == ["split.key is 5; expected text"]
    assert offences(dataset=5, training={"run_url": "/run"}) == ["dataset is 5; expected a section with keys"]
    with pytest.raises(ConfigError) as caught:
        parse_config({"features": {"age": {"type": "numeric"}}, "dataset": {"url": "dbfs:/x"}})
    assert [offence.split(":")[0] for offence in caught.value.offences] == ["dataset.url"]
    assert offences(dataset={"ulr": "/data"}) == [
        "dataset.url is missing; expected a value; add it to the configuration",
        "dataset.ulr is unknown; did you mean dataset.url?",
    ]


def written(folder: Path, text: str) -> str:
    (folder / "pipeline.yaml").write_text(text)
    return str(folder / "pipeline.yaml")


PLAIN = "features: {age: {type: numeric}}\nlabel: {column: late}\ndataset: {url: data}\n"


def test_powers_of_ten_and_dates_are_what_they_look_like(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        PLAIN + "training: {optimizer: {learning_rate: 1e-3}}\n"
        "split: {by: time, key: day, validation_from: 2013-10-01, test_from: 2013-11-01}\n",
    )
    config = load_config(path, ["training.optimizer.weight_decay=5e-2"])
    assert config.training.optimizer.learning_rate == 1e-3
    assert config.training.optimizer.weight_decay == 5e-2
    assert config.split.test_from == "2013-11-01"


def test_what_is_kept_of_a_configuration_is_read_as_the_same(tmp_path: Path) -> None:
    config = load_config(
        written(tmp_path, PLAIN + 'split: {salt: "1e3"}\nclean: {rules: [{column: "on", min: 1e-3}]}\n')
    )
    assert config.split.salt == "1e3"
    assert load_config(written(tmp_path, config_yaml(config).decode())) == config


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "is empty; expected sections"), ("- a", "is a list; expected sections"), ("a", "is 'a'; expected sections")],
)
def test_a_file_without_sections_is_named(text: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"pipeline\.yaml {what}"):
        load_config(written(tmp_path, text))


def test_a_key_that_yaml_takes_for_a_truth_value_is_to_be_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features has the key true; expected text; quote it"):
        load_config(written(tmp_path, PLAIN.replace("age", "on")))


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="is a folder; expected a YAML file"):
        load_config(str(tmp_path))


def test_targets_that_are_no_sections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="targets is 5; expected"):
        load_config(written(tmp_path, PLAIN + "targets: 5\n"))
