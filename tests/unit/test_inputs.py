"""Input files are listed before Spark starts: all that Spark will read, and nothing that it will not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import PipelineConfig, parse_config
from pipeline.errors import ConfigError, InputMissingError
from pipeline.inference.stored_table import StoredTable
from pipeline.preparation.inputs import is_delta, is_pattern, list_inputs, semantic
from pipeline.preparation.propose import check_table


def config_of(folder: Path, path: Any, dataset: str = "out", run: str = "run") -> PipelineConfig:
    return parse_config(
        {
            "source": {"inputs": {"t": {"path": path}}},
            "features": {"x": {"type": "numeric"}},
            "label": {"column": "y"},
            "dataset": {"url": dataset},
            "training": {"run_url": run},
        },
        str(folder),
    )


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("a.csv", "_b.csv", ".c.csv", "d.csv._COPYING_", "_SUCCESS", "day=1/a.csv", "_day=1/a.csv", "_t/a.csv"):
        (tmp_path / "g" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "g" / name).write_text("x,y\n1,0\n")
    return tmp_path


def listed(folder: Path, path: Any) -> list[str]:
    return [str(Path(file.path).relative_to(folder)) for file in list_inputs(config_of(folder, path))["t"]]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("g", ["g/_day=1/a.csv", "g/a.csv", "g/day=1/a.csv"]),
        ("g/*", ["g/_day=1/a.csv", "g/_t/a.csv", "g/a.csv", "g/day=1/a.csv"]),
        ("g/[a-z]*.csv", ["g/a.csv"]),
        ("g/_t", ["g/_t/a.csv"]),
        ([Path("g/day=1"), "g/a.csv", "g/a*"], ["g/a.csv", "g/day=1/a.csv"]),
    ],
)
def test_what_is_hidden_to_spark_is_not_listed(files: Path, path: Any, expected: list[str]) -> None:
    assert listed(files, path) == expected


@pytest.mark.parametrize(
    ("path", "hidden"),
    [("g/_b.csv", "_b.csv"), ("g/.c.csv", ".c.csv"), ("g/*.csv", "_b.csv"), (["g", "g/_b*"], "_b.csv")],
)
def test_a_file_that_is_meant_and_hidden_is_refused_by_name(files: Path, path: Any, hidden: str) -> None:
    with pytest.raises(InputMissingError) as caught:
        list_inputs(config_of(files, path))
    (offence,) = caught.value.offences
    assert offence.startswith("source.inputs.t.path is ")
    assert f": Spark reads no file whose name begins with _ or ., such as {files}/g/{hidden};" in offence
    for look in (StoredTable.find, check_table):
        with pytest.raises(InputMissingError, match=hidden):
            look(str(files / (path if isinstance(path, str) else path[1])))


def test_every_path_of_a_list_must_be_there_and_braces_stand_for_themselves(files: Path) -> None:
    with pytest.raises(InputMissingError) as caught:
        list_inputs(config_of(files, ["g", "h", "{a,b}.csv"]))
    assert [offence.split("; expected")[0] for offence in caught.value.offences] == [
        f"source.inputs.t.path is {files}/h: nothing is there",
        f"source.inputs.t.path is {files}/{{a,b}}.csv: nothing is there",
    ]
    assert "braces stand for themselves; write a list of paths" in caught.value.offences[1]
    (files / "{a,b}.csv").write_text("x\n")
    assert listed(files, "{a,b}.csv") == ["{a,b}.csv"]


def test_a_name_that_is_there_is_no_pattern_though_it_holds_wildcards(tmp_path: Path) -> None:
    for folder in ("export [final]", "export f", "all*"):
        (tmp_path / folder / "_delta_log").mkdir(parents=True)
        (tmp_path / folder / "a.csv").write_text("x\n")
    assert listed(tmp_path, "export [final]") == ["export [final]/a.csv"]
    assert [is_delta(str(tmp_path / name)) for name in ("export [final]", "all*", "export*")] == [True, True, False]
    assert [is_pattern(str(tmp_path / name)) for name in ("export [final]", "export [fg]", "a")] == [False, True, False]


@pytest.mark.parametrize(
    ("path", "places", "said"),
    [
        ("g", {"dataset": "g/out"}, "dataset.url is {0}/g/out, and source.inputs.t.path {0}/g; expected"),
        ("g", {"run": "g/day=1/run"}, "training.run_url is {0}/g/day=1/run, and source.inputs.t.path {0}/g; expected"),
        ("*/*.csv", {"dataset": "g"}, "dataset.url is {0}/g, and source.inputs.t.path there; expected"),
    ],
)
def test_nothing_is_written_where_an_input_would_read_it(
    files: Path, path: str, places: dict[str, str], said: str
) -> None:
    (files / "g" / "_b.csv").unlink()
    with pytest.raises(ConfigError) as caught:
        list_inputs(config_of(files, path, **places))
    (offence,) = caught.value.offences
    assert offence.startswith(said.format(files))
    assert list_inputs(config_of(files, path, "g-out", "g.csv.run"))


def test_where_a_database_is_makes_no_other_dataset_and_what_is_read_of_it_does(tmp_path: Path) -> None:
    def of(**options: str) -> Any:
        input_ = {"format": "jdbc", "options": options}
        values = config_of(tmp_path, "any").model_dump(by_alias=True)
        return semantic(parse_config({**values, "source": {"inputs": {"t": input_}}}))

    here = of(url="jdbc:x://one", user="a", driver="D", fetchsize="10", numPartitions="2", dbTable="sales")
    assert here["source"]["inputs"]["t"]["options"] == {"dbTable": "sales"}
    assert here == of(URL="jdbc:x://two", dbTable="sales")
    assert here != of(url="jdbc:x://one", dbTable="buys")


def test_names_of_inputs_differ_by_more_than_case(tmp_path: Path) -> None:
    values = config_of(tmp_path, "a.csv").model_dump(by_alias=True)
    one = values["source"]["inputs"]["t"]
    source = {"inputs": {"t": one, "T": one}, "primary": "t", "query": "SELECT * FROM t"}
    with pytest.raises(ConfigError, match=r"inputs has t, T; expected names that differ by more than case"):
        parse_config({**values, "source": source})
