"""A predictor gives a row the same answer wherever the row stands, and trusts no file that it has not checked."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config.training import ModelConfig
from pipeline.errors import ConfigError, DataError, SecurityError, StorageError
from pipeline.inference.encoded import read_row_group, row_groups, verify_crc
from pipeline.inference.inputs import model_inputs
from pipeline.inference.predictor import Predictor, check_exportable, export_model
from pipeline.models import build_model
from pipeline.task import UserCode
from pipeline.testing import tiny_dataset
from tests.small_model import raw_rows, small_dataset, small_model, small_schema


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(str(tmp_path_factory.mktemp("a [b] ü")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dataset):
    return small_model(str(tmp_path_factory.mktemp("model")), dataset)


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder)


def encode(predictor, rows):
    return predictor.features.transform(predictor.canonical(rows))


def test_predictions_are_probabilities_and_their_classes_in_the_order_of_the_rows(predictor):
    rows = raw_rows(700, 2).set_index(np.arange(700)[::-1])
    answer = predictor.predict(rows)
    assert list(answer.columns) == ["prediction", "probability"]
    assert answer.index.equals(rows.index)
    assert answer["probability"].dtype == np.float32
    assert answer["probability"].between(0, 1).all()
    assert (answer["prediction"] == (answer["probability"] >= 0.5)).all()
    assert answer["probability"].nunique() > 500


def test_a_rows_prediction_is_bit_equal_alone_in_any_company_and_in_any_place(predictor):
    rows = raw_rows(1300, 2)
    together = predictor.predict(rows)["probability"].to_numpy()
    for place in (0, 1, 511, 512, 777, 1299):
        assert predictor.predict(rows.iloc[[place]])["probability"].to_numpy() == together[place]
    shuffled = np.random.default_rng(0).permutation(1300)
    assert np.array_equal(predictor.predict(rows.iloc[shuffled])["probability"].to_numpy(), together[shuffled])


def test_the_features_of_raw_rows_are_bit_equal_to_those_in_the_part_files(dataset, predictor):
    encoded = model_inputs(encode(predictor, raw_rows(500, 2)), predictor.schema)
    stored = [read_row_group(dataset.url, dataset.schema, group)[0] for group in row_groups(dataset, "test")]
    for name in ("numeric", "categorical"):
        assert np.array_equal(encoded[name], np.concatenate([inputs[name] for inputs in stored]))


def test_null_nan_and_absent_types_are_one_and_unseen_is_not_null(predictor):
    base = {"amount": 1.0, "colour": "red", "when": pd.Timestamp("2024-05-05 10:00"), "paid": True}
    variants = [
        [{**base, "amount": value, "colour": None} for value in (None, np.nan, pd.NA)],
        [{**base, "colour": value} for value in (None, np.nan, pd.NaT)],
    ]
    for rows in variants:
        assert predictor.predict(pd.DataFrame(rows, dtype=object))["probability"].nunique() == 1
    encoded = encode(predictor, pd.DataFrame([{**base, "colour": "mauve"}, {**base, "colour": None}]))
    assert encoded["colour_id"].tolist() == [2, 1]


def test_no_rows_give_no_predictions(predictor):
    assert len(predictor.predict(raw_rows(0))) == 0


def test_all_missing_columns_are_named_at_once(predictor):
    with pytest.raises(DataError) as caught:
        predictor.predict(raw_rows(3).drop(columns=["amount", "paid"]))
    assert caught.value.offences == (
        "column amount is missing; expected number values; add it",
        "column paid is missing; expected boolean values; add it",
    )


def test_all_columns_with_wrong_values_are_named_at_once(predictor):
    rows = raw_rows(3).astype(object).assign(amount=["many", 1, 2], paid=["perhaps", True, None])
    with pytest.raises(DataError) as caught:
        predictor.predict(rows)
    assert [offence.split(":")[0] for offence in caught.value.offences] == ["column amount", "column paid"]


def test_the_same_model_has_the_same_digest_and_other_weights_another(tmp_path, dataset):
    digests = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(seed)
        weights = build_model(ModelConfig(name="linear"), dataset.schema).state_dict()
        digests.append(export_model(dataset, ModelConfig(name="linear"), weights, str(tmp_path / str(number))))
    assert digests[0] == digests[1] != digests[2]
    assert Predictor.load(str(tmp_path / "0")).digest == digests[0]


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "manifest.json"])
def test_one_flipped_bit_in_any_file_is_seen_before_use(tmp_path, dataset, folder, name):
    for file in Path(folder).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StorageError, match=r"corrupt|missing|not a"):
        Predictor.load(str(tmp_path))


def test_a_folder_without_its_manifest_is_no_model(tmp_path):
    with pytest.raises(StorageError, match="missing"):
        Predictor.load(str(tmp_path))


@pytest.fixture
def my_factory(tmp_path, monkeypatch):
    """Writes the module `my_factory`, which is no longer imported afterwards; traced or not, as told."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(activation="torch.tanh", rows="1.0", cast=""):
        (folder / "my_factory.py").write_text(
            "import torch\nfrom pipeline.models.linear import Linear\n\nclass Net(Linear):\n"
            f"    def forward(self, inputs):\n        return {activation}(super().forward(inputs)) * {rows}\n\n"
            f"def build(schema):\n    return Net(schema){cast}\n"
        )
        sys.modules.pop("my_factory", None)

    yield write
    sys.modules.pop("my_factory", None)


BY_VALUES = "float(inputs['numeric'].sum() > -1e9)"


def exported_factory(dataset, folder):
    config = ModelConfig(factory="my_factory:build")
    torch.manual_seed(5)
    export_model(dataset, config, build_model(config, dataset.schema).float().state_dict(), str(folder))
    sys.modules.pop("my_factory")


def test_the_model_of_a_factory_is_kept_as_data_whatever_becomes_of_its_code(tmp_path, dataset, my_factory):
    answers = []
    for number, activation in enumerate(("torch.tanh", "torch.relu")):
        my_factory(activation)
        exported_factory(dataset, tmp_path / str(number))
        my_factory("torch.nonsense")
        answers.append(Predictor.load(str(tmp_path / str(number))).predict(raw_rows(50))["probability"])
    assert "my_factory" not in sys.modules
    assert not answers[0].equals(answers[1])


def test_a_factory_that_cannot_be_traced_is_loaded_with_the_source_of_its_training_only(tmp_path, dataset, my_factory):
    my_factory("torch.tanh", BY_VALUES)
    exported_factory(dataset, tmp_path / "model")
    allowed = {"allow_factories": ["my_factory:build"]}
    assert len(Predictor.load(str(tmp_path / "model"), **allowed).predict(raw_rows(5))) == 5
    my_factory("torch.relu", BY_VALUES)
    with pytest.raises(StorageError, match=r"trained with my_factory:build when .* bring that source back, or train"):
        Predictor.load(str(tmp_path / "model"), **allowed)
    assert "my_factory" not in sys.modules
    (tmp_path / "code" / "my_factory.py").unlink()
    with pytest.raises(StorageError, match="that is missing now"):
        Predictor.load(str(tmp_path / "model"), **allowed)


def test_a_factory_is_refused_before_it_is_imported_unless_the_caller_allows_it(tmp_path, dataset, my_factory):
    my_factory("torch.tanh", BY_VALUES)
    exported_factory(dataset, tmp_path / "model")
    with pytest.raises(SecurityError, match="my_factory:build, which is not allowed"):
        Predictor.load(str(tmp_path / "model"))
    assert "my_factory" not in sys.modules
    allowed = Predictor.load(str(tmp_path / "model"), allow_factories=["my_factory:build"])
    assert len(allowed.predict(raw_rows(5))) == 5


@pytest.mark.parametrize("rows", ["1.0", BY_VALUES], ids=["traced", "by its name"])
def test_a_factory_of_another_precision_is_kept_in_that_of_its_training(tmp_path, dataset, my_factory, rows):
    answers = []
    for cast in ("", ".half()"):
        my_factory("torch.tanh", rows, cast)
        exported_factory(dataset, tmp_path / f"model{cast}")
        predictor = Predictor.load(str(tmp_path / f"model{cast}"), allow_factories=["my_factory:build"])
        answers.append(predictor.predict(raw_rows(50))["probability"].to_numpy())
    assert answers[1] == pytest.approx(answers[0], abs=1e-3)  # its random start is rounded to half


@pytest.mark.parametrize(
    ("activation", "rows", "fault"),
    [
        ("torch.tanh", "1.0", None),
        ("torch.tanh", BY_VALUES, None),
        ("torch.tanh", "(1.0 if len(inputs['numeric']) <= 32 else missing)", None),
        ("torch.tanh", "(1.0 if self.training else missing)", r"Net fails in eval mode on 32 rows: NameError"),
    ],
    ids=["traced", "by its name", "of few rows", "failing"],
)
def test_a_factory_is_tried_before_training_on_so_many_rows_as_a_forward_of_training_has(
    dataset, my_factory, activation, rows, fault
):
    my_factory(activation, rows)
    with pytest.raises(ConfigError, match=fault) if fault else nullcontext():
        check_exportable(ModelConfig(factory="my_factory:build"), dataset.schema, UserCode(), rows=32)


def own_model(schema):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.EmbeddingBag(sum(schema.cardinalities.values()), 4, mode="sum")
            self.out = torch.nn.Linear(4 + len(schema.numeric), 1)

        def forward(self, inputs):
            return self.out(torch.cat([self.table(inputs["categorical"]), inputs["numeric"]], 1)).squeeze(1)

    return Own()


def test_a_model_from_a_notebook_cell_is_kept_as_data_and_predicts_the_same(tmp_path, dataset):
    torch.manual_seed(3)
    model = own_model(dataset.schema).eval()
    code = UserCode(model=own_model)
    check_exportable(ModelConfig(), dataset.schema, code)
    export_model(dataset, ModelConfig(), model.state_dict(), str(tmp_path), code)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["manifest.json", "model.json", "weights.safetensors"]
    loaded = Predictor.load(str(tmp_path))
    inputs = model_inputs(encode(loaded, raw_rows(700)), dataset.schema)
    expected = torch.sigmoid(model({name: torch.from_numpy(values) for name, values in inputs.items()}))
    assert loaded.predict_encoded(inputs) == pytest.approx(expected.detach().numpy(), abs=1e-6)


def test_a_model_that_cannot_be_kept_is_known_before_training():
    class Printing(torch.nn.Module):
        def forward(self, inputs):
            return inputs["numeric"][:, 0] * float(inputs["numeric"].sum())

    with pytest.raises(ConfigError, match="Printing is not traceable"):
        check_exportable(ModelConfig(), small_schema(), UserCode(model=lambda schema: Printing()))


def test_vector_columns_come_out_of_the_packed_bytes_in_their_shape(tmp_path):
    dataset = tiny_dataset(str(tmp_path), 100, vectors={"pixels": ("uint8", (3, 2)), "embedding": ("float32", (5,))})
    inputs, others = read_row_group(dataset.url, dataset.schema, row_groups(dataset, "train")[0])
    assert inputs["pixels"].shape == (64, 3, 2)
    assert inputs["embedding"].shape == (64, 5)
    assert inputs["numeric"].shape == (64, 4)
    assert set(others) == {"label"}
    import pyarrow.parquet as pq

    wide = pq.read_table(f"{dataset.url}/{dataset.manifest.splits['train'][0].path}").slice(0, 64)
    assert inputs["pixels"].reshape(64, 6).tolist() == wide.column("pixels").to_pylist()
    assert np.array_equal(inputs["numeric"][:, 1], wide.column("n1").to_numpy())


def test_a_flipped_bit_in_a_part_file_is_seen(tmp_path):
    dataset = tiny_dataset(str(tmp_path), 100)
    verify_crc(dataset, "test")
    path = Path(dataset.url) / dataset.manifest.splits["test"][0].path
    data = bytearray(path.read_bytes())
    data[200] ^= 4
    path.write_bytes(data)
    with pytest.raises(StorageError, match="corrupt"):
        verify_crc(dataset, "test")


def test_model_files_hold_no_place_time_or_host(folder):
    description = json.loads((Path(folder) / "model.json").read_text())
    assert set(description) == {"format", "architecture", "program", "schema", "features", "dataset"}
