"""What the label section may say: one column, several of one type, or nothing; and what other sections make of it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from pipeline import flow, stages
from pipeline.before_launch import check_training
from pipeline.config import parse_config
from pipeline.errors import ConfigError
from pipeline.preparation.inputs import semantic
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset
from pipeline.training.objectives import class_weight_table
from tests.no_spark import NeverAsked

THREE = ["late", "lost", "broken"]


def values(label: Any = None, **sections: Any) -> dict[str, Any]:
    return {
        "features": {"age": {"type": "numeric"}},
        **({} if label is None else {"label": label}),
        "dataset": {"url": "data"},
        "training": {"run_url": "run"},
        **sections,
    }


def offences(label: Any = None, **sections: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values(label, **sections))
    assert caught.value.code == 78
    return caught.value.offences


def test_a_list_of_columns_is_several_labels_of_one_type() -> None:
    config = parse_config(values({"column": THREE, "type": "regression", "scale": "standard"}))
    assert config.labels == ("late", "lost", "broken")
    assert config.label_type == "regression"


@pytest.mark.parametrize("column", ["late", ["late"]])
def test_one_label_is_written_as_a_plain_name_so_that_content_ids_stay(column: Any) -> None:
    section = semantic(parse_config(values({"column": column})))["label"]
    assert section == {
        "column": "late",
        "type": "binary",
        "classes": None,
        "max_classes": 1000,
        "scale": "none",
        "min": None,
        "max": None,
    }


@pytest.mark.parametrize("sections", [{}, {"label": None}])
def test_without_the_section_or_with_null_there_is_no_label(sections: dict[str, Any]) -> None:
    config = parse_config(values(**sections))
    assert (config.label, config.labels, config.label_type) == (None, (), None)


def test_columns_is_refused_with_the_key_that_is_meant() -> None:
    (found,) = offences({"columns": THREE})
    assert found == "label: columns is unknown; expected label.column, which is one name or a list of names"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ({"column": []}, "label: column is empty; expected names; leave the section out for a dataset without label"),
        ({"column": ["a", "b", "a"]}, "label: column names a twice; expected each label once"),
        ({"column": ["a", "b (c)"]}, "label: column names 'b (c)'; expected letters, digits and underscores"),
        (
            {"column": THREE, "type": "multiclass"},
            "label: type is multiclass for 3 columns; expected binary",
        ),
        ({"column": THREE, "classes": ["x", "y"]}, "label: classes are set for 3 columns; expected binary"),
        ({"column": THREE, "scale": "standard"}, "label: scale, min or max is set but type is binary; expected regre"),
    ],
)
def test_several_labels_that_cannot_be_are_refused_by_name(label: dict[str, Any], expected: str) -> None:
    (found,) = offences(label)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("column", "there"), [(None, "is no label"), (["late", "lost"], "are 2 labels"), (THREE, "are 3 labels")]
)
def test_target_encoding_and_class_weights_need_one_label(column: Any, there: str) -> None:
    found = offences(
        column and {"column": column},
        features={"shop": {"type": "target"}},
        training={"run_url": "run", "class_weights": "balanced"},
    )
    assert found == (
        f"features.shop is a target encoding, but there {there}; expected one label",
        f"training.class_weights is set, but there {there}; expected null, or one label",
    )


def test_a_feature_that_is_one_of_the_labels_is_refused() -> None:
    features = {
        "seen": {"type": "numeric", "column": "lost"},
        "late": {"type": "numeric"},
        "wait": {"type": "elapsed", "column": "end", "since_column": "broken"},
        "age": {"type": "numeric"},
    }
    assert offences({"column": THREE}, features=features) == (
        "features.seen is the label lost; expected it to be predicted; remove the feature",
        "features.late is the label late; expected it to be predicted; remove the feature",
        "features.wait.since_column is the label broken; expected it to be predicted; remove the feature",
    )


def test_a_stratified_split_needs_a_label_and_takes_several() -> None:
    split = {"by": "stratified"}
    assert parse_config(values({"column": THREE}, split=split)).split.by == "stratified"
    (found,) = offences(split=split)
    assert found.startswith("split.by is stratified, but there is no label; expected hash, group, time or column")


def test_the_gate_knows_the_means_over_labels_and_the_metrics_of_each() -> None:
    bound = {"min": 0.5}
    config = parse_config(values({"column": THREE}, gate={"roc_auc": bound, "roc_auc_lost": bound}))
    assert set(config.gate) == {"roc_auc", "roc_auc_lost"}
    (found,) = offences({"column": THREE}, gate={"roc_auc_found": bound, "rmse": bound})
    assert found.startswith("gate names roc_auc_found, rmse, but label.type is binary; expected accuracy")
    assert found.endswith("log_loss, each also as <metric>_<label>")
    assert offences({"column": "late"}, gate={"roc_auc_late": bound})[0].startswith("gate names roc_auc_late, but")
    assert offences(gate={"roc_auc": bound}) == (
        "gate names roc_auc, but there is no label to measure by; expected no gate",
    )


@pytest.mark.parametrize("stage", ["run", "train", "evaluate"])
def test_stages_that_need_a_label_say_so_before_anything_starts(tmp_path: Any, stage: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    config = parse_config(values(dataset={"url": str(tmp_path / "data")}, training={"run_url": str(tmp_path / "run")}))
    wanted = rf"label is missing, and `{stage}` has no loss .*pipeline\.train"
    for ask in (stages.run_stage, lambda *of: stages.dry_run(*of, print)):
        with pytest.raises(ConfigError, match=wanted) as caught:
            ask(config, stage)
        assert caught.value.code == 78
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("label", "class_weights", "expected"),
    [
        (
            {"type": "regression"},
            "balanced",
            ["s is set, but label.type is regression; expected null, or a label with classes"],
        ),
        ({}, {"0": 1, "yes": 2, "no": 3}, [f"s.{name} is no class; expected one of 0, 1" for name in ("yes", "no")]),
        ({"type": "multiclass", "classes": ["a", "b"]}, {"a": 2, "c": 3}, ["s.c is no class; expected one of a, b"]),
    ],
)
def test_class_weights_that_do_not_fit_the_label_are_refused_with_all_else(
    label: dict[str, Any], class_weights: Any, expected: list[str]
) -> None:
    training = {"run_url": "run", "class_weights": class_weights}
    *found, last = offences({"column": "late", **label}, training=training, gate={"beauty": {"min": 0}})
    assert last.startswith("gate names beauty")
    assert found == [f"training.class_weight{offence}" for offence in expected]


@pytest.mark.parametrize("label", [{}, {"type": "multiclass"}, {"type": "multiclass", "classes": ["0", "1"]}])
def test_class_weights_may_name_any_classes_that_the_label_may_have(label: dict[str, Any]) -> None:
    training = {"run_url": "run", "class_weights": {"1": 20}}
    assert parse_config(values({"column": "late", **label}, training=training)).training.class_weights == {"1": 20}


@pytest.mark.parametrize(
    ("label", "best_by", "known"),
    [
        ({"column": "late"}, "roc_acu", "auto or one of loss, accuracy, precision, recall, f1, roc_auc, pr_auc, log_l"),
        ({"column": "late", "type": "regression"}, "roc_auc", "auto or one of loss, mae, rmse, r2"),
        ({"column": THREE}, "f1_found", r"auto or one of loss, accuracy, .*, f1_late, f1_lost, f1_broken"),
    ],
)
def test_a_best_by_that_nothing_measures_is_refused_before_anything_starts_unless_code_may_measure_it(
    tmp_path: Any, label: dict[str, Any], best_by: str, known: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(flow, "SparkOnDemand", NeverAsked)
    training = {"run_url": str(tmp_path / "run"), "best_by": best_by}
    config = parse_config(values(label, dataset={"url": str(tmp_path / "data")}, training=training))
    wanted = f"training.best_by is {best_by}; expected {known}"
    for stage in ("run", "train"):
        for ask in (stages.run_stage, lambda *of: stages.dry_run(*of, print)):
            with pytest.raises(ConfigError, match=wanted):
                ask(config, stage)
    columns = [label["column"]] if isinstance(label["column"], str) else label["column"]
    dataset = tiny_dataset(str(tmp_path), 20, label_type=config.label_type, labels=columns)
    with pytest.raises(ConfigError, match=wanted):
        check_training(config, dataset, UserCode())
    for code in (UserCode(metrics=lambda predictions, label, weight: {best_by: weight.sum()}), UserCode(loop=print)):
        if best_by != "roc_auc":
            with pytest.raises(ConfigError, match=rf"training.best_is is auto, but training.best_by {best_by} is no"):
                check_training(config, dataset, code)
        training["best_is"] = "max"
        check_training(parse_config(values(label, training=training)), dataset, code)


def test_class_weights_that_only_the_data_can_contradict_are_refused_before_the_launch(tmp_path: Any) -> None:
    dataset = tiny_dataset(str(tmp_path), 60, label_type="multiclass", labels=("late",), classes=("a", "b"))
    label = {"column": "late", "type": "multiclass"}
    for weights, wanted in (({"c": 2.0}, r"class_weights\.c is no class; expected one of a, b"), ({"a": 2.0}, None)):
        config = parse_config(values(label, training={"run_url": "run", "class_weights": weights}))
        with pytest.raises(ConfigError, match=wanted) if wanted else contextlib.nullcontext():
            check_training(config, dataset, UserCode())


@pytest.mark.parametrize("factor", [-0.5, float("inf"), float("nan")])
def test_a_class_weight_is_a_number_from_0_on(factor: float) -> None:
    training = {"run_url": "run", "class_weights": {"0": 1.0, "1": factor}}
    (found,) = offences({"column": "late"}, training=training)
    assert found.startswith(f"training.class_weights.1 is {factor:g}; expected ")


def test_class_weights_that_leave_no_row_are_refused(tmp_path: Any) -> None:
    zero = {"run_url": "run", "class_weights": {"0": 0, "1": 0}}
    (found,) = offences({"column": "late"}, training=zero)
    assert found == "training.class_weights is 0 for every class; expected more for at least one"
    dataset = tiny_dataset(str(tmp_path), 60, label_type="multiclass", labels=("late",), classes=("a", "b"))
    label = {"column": "late", "type": "multiclass"}
    config = parse_config(values(label, training={"run_url": "run", "class_weights": {"a": 0, "b": 0}}))
    with pytest.raises(ConfigError, match=r"class_weights \{'a': 0.0, 'b': 0.0\} leave no row of train any weight"):
        check_training(config, dataset, UserCode())
    counts = {"a": 10}
    with pytest.raises(ConfigError, match=r"leave no row of train any weight"):
        class_weight_table(dataset.schema, {"a": 0.0}, counts)
    assert class_weight_table(dataset.schema, {"a": 0.0}, {"a": 10, "b": 5}).tolist() == [0.0, 1.0]


def test_a_training_from_code_without_label_needs_a_loss_or_a_loop_of_its_own(tmp_path: Any) -> None:
    dataset = tiny_dataset(str(tmp_path), 20, label_type=None, labels=())
    config = parse_config(values(model={"name": "linear"}))
    with pytest.raises(ConfigError, match="the dataset has no label; expected a loss from code"):
        check_training(config, dataset, UserCode())
    check_training(config, dataset, UserCode(loop=print))
    check_training(config, dataset, UserCode(loss=lambda predictions, label, weight: predictions @ weight))


def test_a_weight_is_a_column_of_its_own_and_part_of_what_the_rows_are() -> None:
    config = parse_config(values({"column": "late", "weight": "seats"}))
    assert config.weight == "seats"
    assert semantic(config)["label"]["weight"] == "seats"
    assert parse_config(values({"column": "late"})).weight is None
    assert "weight is the label late" in offences({"column": ["late", "lost"], "weight": "late"})[0]
