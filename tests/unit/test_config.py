"""Configuration: one YAML file, everything wrong with it named at once, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_config, parse_config
from pipeline.errors import ConfigError, InputMissingError

SMALLEST: dict[str, Any] = {
    "features": {"age": {"type": "numeric"}},
    "label": {"column": "late"},
    "dataset": {"url": "data"},
    "training": {"run_url": "run"},
}

YAML = """
features: {age: {type: numeric}}
label: {column: late}
dataset: {url: "work space/[données]"}
training: {run_url: "s3://bucket/run", epochs: 3}
targets:
  cluster: {training: {epochs: 50}, cluster: {num_proc: 8}}
"""


def offences(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert caught.value.code == 78
    return caught.value.offences


def written(folder: Path, text: str = YAML) -> str:
    path = folder / "pipeline.yaml"
    path.write_text(text)
    return str(path)


def test_unknown_key_wrong_type_and_bad_bound_are_all_named_at_once() -> None:
    values = {**SMALLEST, "training": {"run_url": "run", "epochs": 0, "sed": 3, "seed": "x"}}
    found = offences(values)
    assert len(found) == 3
    assert "training.epochs is 0; expected at least 1" in found
    assert "training.sed is unknown; did you mean training.seed?" in found
    assert "training.seed is 'x'; expected a whole number" in found


def test_a_typo_in_a_feature_names_the_feature_and_the_nearest_key() -> None:
    assert offences({**SMALLEST, "features": {"age": {"type": "numeric", "scal": "none"}}}) == (
        "features.age.scal is unknown; did you mean features.age.scale?",
    )


def test_an_unknown_feature_type_lists_the_known_ones() -> None:
    (found,) = offences({**SMALLEST, "features": {"age": {"type": "numerc"}}})
    assert found.startswith("features.age.type is 'numerc'; expected one of 'numeric', 'categorical'")


def test_batch_size_is_refused_with_both_names_that_are_meant() -> None:
    (found,) = offences({**SMALLEST, "training": {"run_url": "run", "batch_size": 32}})
    assert "global_batch_size" in found
    assert "micro_batch_size" in found


def test_relative_paths_are_relative_to_the_file_and_odd_names_are_ordinary(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config.dataset.url == str(tmp_path / "work space/[données]")
    assert config.training.run_url == "s3://bucket/run"


def test_paths_of_hadoop_are_named_with_all_else_that_is_wrong() -> None:
    found = offences({**SMALLEST, "dataset": {"url": "dbfs:/x"}, "training": {"run_url": "file:/x", "epochs": 0}})
    assert found == (
        "dataset.url: dbfs:/x is neither a path nor a URL; expected /dbfs/x or a path below /Volumes; write it so",
        "training.run_url: file:/x is neither a path nor a URL; expected /x or file:///x; write it so",
        "training.epochs is 0; expected at least 1",
    )


def test_a_target_lies_over_the_file_and_set_lies_over_both(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), ["training.epochs=7", "cluster.launcher=in_process"], target="cluster")
    assert (config.training.epochs, config.cluster.num_proc, config.cluster.launcher) == (7, 8, "in_process")


def test_a_missing_target_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'moon'; expected one of .*: cluster"):
        load_config(written(tmp_path), target="moon")


@pytest.mark.parametrize("override", ["training.epochs", "=3", "training..epochs=3"])
def test_set_without_key_and_value_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(written(tmp_path), [override])


def test_set_is_validated_like_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs is 'many'"):
        load_config(written(tmp_path), ["training.epochs=many"])


@pytest.mark.parametrize("text", ["a: [1", "- a list", "a: 1\na: 2", "!!python/object/apply:os.getcwd []"])
def test_broken_doubled_or_hostile_yaml_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(written(tmp_path, text))


def test_a_missing_file_is_66(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError) as caught:
        load_config(str(tmp_path / "none.yaml"))
    assert caught.value.code == 66


def test_several_inputs_need_a_query_and_a_primary() -> None:
    inputs = {"a": {"path": "a.csv"}, "b": {"path": "b.csv"}}
    (found,) = offences({**SMALLEST, "source": {"inputs": inputs}})
    assert "primary is missing; expected one of a, b" in found


def test_a_program_that_names_no_run_folder_gets_one_beside_the_dataset() -> None:
    values = {key: value for key, value in SMALLEST.items() if key != "training"}
    config = parse_config({**values, "dataset": {"url": "/data/flights/"}})
    assert config.training.run_url == "/data/flights-run"


def test_a_relative_sqlite_store_lies_beside_the_file_and_servers_stay_as_they_are(tmp_path: Path) -> None:
    config = load_config(written(tmp_path), ["tracking.uri=sqlite:///work/mlflow.db"])
    assert config.tracking.uri == f"sqlite:///{tmp_path}/work/mlflow.db"
    for uri in ("sqlite:////var/mlflow.db", "http://127.0.0.1:5000"):
        assert load_config(written(tmp_path), [f"tracking.uri={uri}"]).tracking.uri == uri
