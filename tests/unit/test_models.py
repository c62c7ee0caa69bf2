"""Built-in architectures: shapes, options, and models from the user's own code."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from pipeline.config.training import ModelConfig
from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models import BUILT_IN, build_model
from pipeline.models.tabular import Tabular
from pipeline.task import UserCode
from pipeline.testing import tiny_schema

IMAGE = {"pixels": ("uint8", (1, 8, 8))}


def _inputs(schema: DatasetSchema, rows: int = 5) -> dict[str, torch.Tensor]:
    inputs: dict[str, torch.Tensor] = {}
    if schema.numeric:
        inputs["numeric"] = torch.randn(rows, len(schema.numeric))
    if schema.cardinalities:
        inputs["categorical"] = torch.randint(0, min(schema.cardinalities.values()), (rows, len(schema.cardinalities)))
    for name, shape in schema.vectors.items():
        inputs[name] = torch.randint(0, 256, (rows, *shape), dtype=torch.uint8)
    return inputs


TABLES = [(3, 2, {}), (3, 0, {}), (0, 2, {})]
IMAGES = [(2, 2, IMAGE), (0, 0, IMAGE)]


@pytest.mark.parametrize(
    ("name", "numeric", "categorical", "vectors"),
    [(name, *columns) for name in sorted(BUILT_IN) for columns in IMAGES + (TABLES if name != "cnn" else [])],
)
@pytest.mark.parametrize(("label_type", "shape"), [("binary", (5,)), ("regression", (5,)), ("multiclass", (5, 3))])
def test_a_model_gives_one_output_per_row_whatever_the_features(
    name: str, numeric: int, categorical: int, vectors: Any, label_type: Any, shape: tuple[int, ...]
) -> None:
    schema = tiny_schema(numeric, categorical, vectors, label_type, ("a", "b", "c"))
    model = build_model(ModelConfig(name=name), schema)  # type: ignore[arg-type]
    assert model(_inputs(schema)).shape == shape


def test_the_generator_decides_the_weights() -> None:
    schema = tiny_schema(3, 2, {}, "binary", ())
    torch.manual_seed(5)
    first = build_model(ModelConfig(name="tabular"), schema).state_dict()
    torch.manual_seed(5)
    second = build_model(ModelConfig(name="tabular"), schema).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_all_wrong_options_are_named() -> None:
    schema = tiny_schema(3, 2, {}, "binary", ())
    with pytest.raises(ConfigError) as caught:
        build_model(ModelConfig(name="tabular", options={"hiden": [4], "drop": 1}), schema)
    assert [offence.split()[0] for offence in caught.value.offences] == ["model.options.drop", "model.options.hiden"]
    with pytest.raises(ConfigError) as caught:
        build_model(ModelConfig(name="tabular", options={"hidden": [0], "dropout": 1.5, "norm": "group"}), schema)
    assert len(caught.value.offences) == 3


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_options_shape_the_network(norm: str) -> None:
    schema = tiny_schema(3, 2, {}, "binary", ())
    options = {"hidden": [8], "norm": norm, "activation": "gelu", "embedding_dim": 2}
    model = build_model(ModelConfig(name="tabular", options=options), schema)
    assert model.layers[0].weight.shape == (8, 3 + 2 * 2)  # type: ignore[index,union-attr]


def test_a_wide_and_deep_model_takes_every_option_of_its_deep_part() -> None:
    schema = tiny_schema(3, 2, {}, "binary", ())
    options = {"hidden": [8], "dropout": 0.3, "embedding_dropout": 0.2, "norm": "layer", "activation": "gelu"}
    options |= {"embedding_dim": 2, "intervals": 4, "interval_dim": 5}
    assert options.keys() == inspect.signature(Tabular).parameters.keys() - {"schema"}
    deep = build_model(ModelConfig(name="wide_deep", options=options), schema).deep
    assert str(deep) == str(build_model(ModelConfig(name="tabular", options=options), schema))


def test_a_class_from_a_notebook_cell_is_a_model() -> None:
    class Net(torch.nn.Module):
        def __init__(self, schema: DatasetSchema, width: int) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(len(schema.numeric), width)

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.layer(inputs["numeric"]).sum(1)

    schema = tiny_schema(3, 0, {}, "binary", ())
    model = build_model(ModelConfig(options={"width": 2}), schema, UserCode(model=Net))
    assert model(_inputs(schema)).shape == (5,)


def test_a_factory_that_cannot_be_imported_is_named() -> None:
    schema = tiny_schema(3, 0, {}, "binary", ())
    with pytest.raises(ConfigError, match=r"nowhere\.models:net"):
        build_model(ModelConfig(factory="nowhere.models:net"), schema)


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_one_row_can_be_trained_on(norm: str) -> None:
    """A rank may get a single row of an epoch's last step."""
    schema = tiny_schema(3, 2, {}, "binary", ())
    model = build_model(ModelConfig(name="tabular", options={"norm": norm}), schema).train()
    model(_inputs(schema, rows=1)).sum().backward()


def test_a_number_is_embedded_by_the_interval_of_the_normal_distribution_that_it_lies_in() -> None:
    from pipeline.models.intervals import IntervalEmbedding

    embedding = IntervalEmbedding(columns=2, intervals=4, width=3)
    numbers = torch.tensor([[-10.0, 0.1], [-0.6, 10.0], [-0.6, 0.1]])
    table = embedding.table.weight
    expected = torch.stack([torch.cat([table[a], table[4 + b]]) for a, b in ((0, 2), (1, 3), (1, 2))])
    assert torch.equal(embedding(numbers), expected)
