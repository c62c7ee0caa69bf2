"""Secrets: refused where they are written out, and never kept or shown where a variable stands for them."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import yaml

import pipeline
from pipeline import commands, storage
from pipeline.config import parse_config
from pipeline.config.secret_values import from_environment, unset_variables
from pipeline.errors import ConfigError, SecurityError
from pipeline.preparation.inputs import semantic
from pipeline.report import render_report
from pipeline.run_folder import config_yaml


def written(options: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    orders = {"format": "jdbc", "options": {"url": "jdbc:postgresql://db/shop", "dbtable": "orders", **(options or {})}}
    return {
        "source": {"inputs": {"orders": orders}, "id": ["id"]},
        "features": {"age": {"type": "numeric"}},
        "label": {"column": "late"},
        "dataset": {"url": "/data/orders"},
        "training": {"run_url": "/runs/orders"},
        **sections,
    }


WITH_VARIABLES = written(
    {"user": "me", "password": "${env:DB_PASSWORD}"},
    tracking={"uri": "https://me:${env:MLFLOW_PASSWORD}@tracker"},
    cluster={"spark": {"spark.hadoop.fs.s3a.secret.key": "${env:S3_SECRET}"}},
)


def refused(values: dict[str, Any]) -> list[str]:
    with pytest.raises(SecurityError) as caught:
        parse_config(values)
    assert caught.value.code == 77
    assert "hunter2" not in str(caught.value)
    return [offence.split(" holds a secret; ")[0] for offence in caught.value.offences]


def test_all_secrets_are_refused_at_once_whatever_else_is_wrong() -> None:
    values = written(
        {"password": "hunter2", "sfToken": "hunter2", "url": "jdbc:postgresql://db/shop?user=me&password=hunter2"},
        dataset={"url": "sftp://me:hunter2@host/data"},
        training={"run_url": "/runs/orders", "epochs": "many"},
        tracking={"uri": "https://me:hunter2@tracker"},
        cluster={"spark": {"spark.authenticate.secret": "hunter2", "spark.ssl.keyPassword": "hunter2"}},
    )
    assert refused(values) == [
        "source.inputs.orders.options.url",
        "source.inputs.orders.options.password",
        "source.inputs.orders.options.sfToken",
        "dataset.url",
        "tracking.uri",
        "cluster.spark.spark.authenticate.secret",
        "cluster.spark.spark.ssl.keyPassword",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "jdbc:oracle:thin:me/hunter2@host:1521/shop",
        "jdbc:sqlserver://host;database=shop;password=hunter2",
        "jdbc:mysql://me:hunter2@host/shop",
        "https://account.blob/x?sv=2024&sig=hunter2",
        "https://store/x?api_key=hunter2",
    ],
)
def test_a_secret_in_a_url_is_recognised(url: str) -> None:
    assert refused(written({"url": url})) == ["source.inputs.orders.options.url"]


@pytest.mark.parametrize(
    "sections",
    [
        {"cluster": {"spark": {"spark.kubernetes.authenticate.oauthTokenFile": "/run/token"}}},
        {"cluster": {"spark": {"spark.io.encryption.keySizeBits": "256", "spark.sql.mapKeyDedupPolicy": "LAST_WIN"}}},
        {"cluster": {"spark": {"spark.authenticate.secret": ""}}},
        {"features": {"token": {"type": "categorical", "column": "key"}}, "split": {"by": "group", "key": "password"}},
        {"clean": {"rules": [{"column": "url", "pattern": "https?://[^:]+:[^@]+@.*"}]}},
        {"tracking": {"uri": "postgresql://host:5432/mlflow"}},
        {"tracking": {"uri": "https://me@tracker:8080/a?b=c"}},
    ],
)
def test_names_that_only_look_like_secrets_are_fine(sections: dict[str, Any]) -> None:
    parse_config(written(**sections))


def test_variables_stand_unresolved_in_everything_that_is_kept_or_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DB_PASSWORD", "MLFLOW_PASSWORD", "S3_SECRET"):
        monkeypatch.setenv(name, "hunter2")
    config = parse_config(WITH_VARIABLES)
    (tmp_path / "run").mkdir()
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(WITH_VARIABLES))
    storage.write_bytes(str(tmp_path / "run" / "config.yaml"), config_yaml(config))
    path = str(tmp_path / "pipeline.yaml")
    commands.config(argparse.Namespace(what="show", config=path, overrides=[], target=None))
    shown = capsys.readouterr().out
    kept = (tmp_path / "run" / "config.yaml").read_text()
    for text in (shown, kept, render_report(str(tmp_path / "run"))):
        assert "${env:DB_PASSWORD}" in text
        assert "hunter2" not in text
    content = storage.canonical_json(semantic(config)).decode()
    assert not any(word in content for word in ("DB_PASSWORD", "hunter2"))


def test_a_rotated_password_is_the_same_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "one")
    before = semantic(parse_config(WITH_VARIABLES))
    monkeypatch.setenv("DB_PASSWORD", "two")
    assert semantic(parse_config(WITH_VARIABLES)) == before


def test_a_variable_is_replaced_where_it_is_used_and_an_unset_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET", "a$b")
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    monkeypatch.delenv("MLFLOW_PASSWORD", raising=False)
    assert from_environment("x${env:S3_SECRET}y", "cluster.spark.z") == "xa$by"
    with pytest.raises(ConfigError, match=r"tracking\.uri names \$\{env:DB_PASSWORD\}, which is not set"):
        from_environment("${env:DB_PASSWORD}", "tracking.uri")
    assert [offence.split(" names ")[0] for offence in unset_variables(WITH_VARIABLES)] == [
        "source.inputs.orders.options.password",
        "tracking.uri",
    ]


def test_a_configured_session_of_a_program_is_validated_like_a_file() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.master: 'local\[x\]' is no master"):
        pipeline.spark_session(master="local[x]")
    with pytest.raises(SecurityError, match=r"cluster\.spark\.spark\.some\.password holds a secret"):
        pipeline.spark_session(spark={"spark.some.password": "hunter2"})


def test_a_variable_that_nobody_would_replace_is_refused() -> None:
    values = written(
        dataset={"url": "${env:HOME}/data"}, cluster={"spark": {"spark.driver.extraJavaOptions": "-Da=${env:B}"}}
    )
    with pytest.raises(ConfigError) as caught:
        parse_config(values)
    assert [offence.split("; ")[0] for offence in caught.value.offences] == [
        "dataset.url is ${env:HOME}/data",
        "cluster.spark.spark.driver.extraJavaOptions is -Da=${env:B}",
    ]
