"""What a training is given is tried on the driver: what is wrong with it is named, all at once, before ranks start."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline import stages
from pipeline.before_launch import check_training
from pipeline.config import PipelineConfig, parse_config
from pipeline.dataset import Dataset
from pipeline.errors import ConfigError, InputMissingError
from pipeline.task import UserCode
from tests.small_model import small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(str(tmp_path_factory.mktemp("data")), 200)


def config_of(url: str, **sections: Any) -> PipelineConfig:
    training = {"run_url": "/run", "epochs": 1, "global_batch_size": 50, **sections.pop("training", {})}
    basic = {"features": {"amount": {"type": "numeric"}}, "label": {"column": "late"}, "dataset": {"url": url}}
    return parse_config({**basic, "model": {"name": "linear"}, "training": training, **sections})


def refusal(dataset: Dataset, code: UserCode, **sections: Any) -> ConfigError:
    with pytest.raises(ConfigError) as refused:
        check_training(config_of(dataset.url, **sections), dataset, code)
    return refused.value


class Net(nn.Module):
    def __init__(self, schema: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(len(schema.numeric), 1)

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.linear(inputs["numeric"]).squeeze(1)


def needs_a_file(schema: Any) -> nn.Module:
    raise FileNotFoundError("vocabulary.txt")


def test_a_model_that_cannot_be_built_is_named_with_the_users_own_traceback(dataset: Dataset) -> None:
    error = refusal(dataset, UserCode(model=needs_a_file))
    assert str(error).startswith("model= is needs_a_file, which fails: FileNotFoundError: vocabulary.txt; expected ")
    assert error.detail is not None
    assert error.detail.splitlines()[1].startswith(f'  File "{__file__}", line ')
    assert error.detail.endswith("FileNotFoundError: vocabulary.txt\n")


def test_a_factory_of_the_configuration_is_named_by_its_key(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    factory = f"{__name__}:{needs_a_file.__name__}"
    error = refusal(dataset, UserCode(), model={"factory": factory})
    assert str(error).startswith(f"model.factory is {factory}, which fails: FileNotFoundError: vocabulary.txt; ")


@pytest.mark.parametrize("is_built", [True, False], ids=["a model that is built already", "a number"])
def test_what_builds_no_model_is_refused_by_its_type(dataset: Dataset, is_built: bool) -> None:
    model: Any = Net(dataset.schema) if is_built else 3
    error = refusal(dataset, UserCode(model=model))
    assert str(error).startswith(f"model= is of type {'Net' if is_built else 'int'}; expected a class or function")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda progress: None, "callback= is test_functions"),
        (lambda progress, metrics, more: None, "which does not take them: missing a required argument: 'more'"),
        (3, "callback= is 3; expected callback(progress, metrics)"),
    ],
    ids=["too few", "too many", "none"],
)
def test_a_callback_that_cannot_be_called_is_refused_before_an_epoch_is_over(
    dataset: Dataset, function: Any, said: str
) -> None:
    if callable(function):
        function.__qualname__ = "test_functions"
    assert said in str(refusal(dataset, UserCode(callback=function)))


def one_argument(progress: Any) -> None: ...


def test_a_callback_of_the_configuration_is_named_by_its_key(dataset: Dataset) -> None:
    error = refusal(dataset, UserCode(), training={"callback": f"{__name__}:one_argument"})
    assert str(error).startswith("training.callback is one_argument, which does not take them: too many ")


@pytest.mark.parametrize("loop", [3, lambda: None, lambda context, more: None], ids=["none", "too few", "too many"])
def test_a_loop_that_cannot_be_called_is_refused(dataset: Dataset, loop: Any) -> None:
    error = refusal(dataset, UserCode(loop=loop))
    assert str(error).startswith("loop= is ")
    assert str(error).endswith("; expected loop(context)")


class _Callback:
    def told(self, *_: Any) -> None: ...

    def __call__(self, progress: Any, metrics: Any, more: int = 1) -> None: ...


@pytest.mark.parametrize(
    "callback",
    [lambda p, m: None, _Callback(), _Callback().told, functools.partial(lambda a, p, m: None, 1), max],
    ids=["function", "object", "method", "partial", "written in C"],
)
def test_whatever_takes_its_arguments_passes(dataset: Dataset, callback: Callable[..., Any]) -> None:
    check_training(config_of(dataset.url), dataset, UserCode(callback=callback))


BAD = {
    "model": {"name": "tabular", "options": {"hidden": [-1]}},
    "training": {"optimizer": {"name": "Nope"}, "best_by": "nope"},
    "cluster": {"master": "local[2]", "num_proc": 9},
}


def test_a_dry_run_names_all_that_is_wrong_at_once(dataset: Dataset) -> None:
    with pytest.raises(ConfigError) as refused:
        stages.dry_run(config_of(dataset.url, **BAD), "train", print)
    assert [offence.split(" is ")[0] for offence in refused.value.offences] == [
        "training.best_by",
        "cluster.num_proc",
        "model.options.hidden",
        "training.optimizer.name",
    ]


def test_without_a_dataset_it_names_what_can_be_known_and_a_good_configuration_lacks_the_dataset(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as refused:
        stages.dry_run(config_of(str(tmp_path / "data"), **BAD), "train", print)
    assert [offence.split(" is ")[0] for offence in refused.value.offences] == ["training.best_by", "cluster.num_proc"]
    with pytest.raises(InputMissingError, match="holds no published dataset"):
        stages.dry_run(config_of(str(tmp_path / "data")), "train", print)
