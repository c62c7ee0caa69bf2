"""A user's model becomes plain JSON, computes the same, and can do nothing but compute."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from pipeline.errors import ConfigError, SecurityError  # noqa: E402
from pipeline.inference.program import ProgramModel, export_program  # noqa: E402


class Attention(nn.Module):
    """Embeddings, attention, normalisation, a buffer and a constant: what a notebook's model may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(8, 4), nn.Embedding(9, 4)])
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.norm = nn.BatchNorm1d(12)
        self.head = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.LayerNorm(16), nn.Dropout(0.5), nn.Linear(16, 1))
        self.register_buffer("offset", torch.tensor([0.25]), persistent=False)

    def forward(self, inputs):
        ids = inputs["categorical"]
        embedded = torch.stack([table(ids[:, i]) for i, table in enumerate(self.embeddings)], 1)
        columns = [inputs["numeric"], self.attention(embedded).flatten(1)]
        return self.head(self.norm(torch.cat(columns, 1))).squeeze(1) + self.offset * torch.tensor(2.0)


def inputs(seed: int = 0, rows: int = 32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "numeric": torch.randn(rows, 4, generator=generator),
        "categorical": torch.randint(0, 8, (rows, 2), generator=generator),
    }


def test_a_program_in_json_computes_what_the_model_computed():
    model = Attention().eval()
    program, weights = export_program(model, inputs())
    loaded = ProgramModel(json.loads(json.dumps(program, allow_nan=False)), weights)
    assert torch.allclose(loaded(inputs(1)), model(inputs(1)), atol=1e-5)


def test_the_order_in_which_inputs_are_named_does_not_matter():
    model = Attention().eval()
    program, weights = export_program(model, inputs())
    swapped = dict(reversed(inputs(1).items()))
    assert torch.allclose(ProgramModel(program, weights)(swapped), model(inputs(1)), atol=1e-5)


@pytest.mark.parametrize(
    "operation",
    [
        "aten.from_file.default",
        "prim.device.default",
        "os.system",
        "aten.__class__.default",
        "aten.save.default",
        "exec",
    ],
)
def test_a_program_with_any_other_operation_is_refused_before_anything_runs(operation):
    program, weights = export_program(Attention().eval(), inputs())
    program["operations"].append({"name": "x", "operation": operation, "arguments": ["/etc/passwd"], "keywords": {}})
    with pytest.raises(SecurityError, match="is not known; expected one of torch's core"):
        ProgramModel(program, weights)


class Converting(nn.Module):
    def forward(self, inputs):
        return inputs["numeric"].to(torch.float64).sum(1).to(torch.float32)


def test_a_model_may_convert_between_dtypes():
    program, weights = export_program(Converting(), inputs())
    assert torch.equal(ProgramModel(program, weights)(inputs(3)), Converting()(inputs(3)))


class Branching(nn.Module):
    def forward(self, inputs):
        return inputs["numeric"].sum(1) if inputs["numeric"].sum() > 0 else inputs["numeric"][:, 0]


class Random(nn.Module):
    def forward(self, inputs):
        return inputs["numeric"][:, 0] + torch.rand(len(inputs["numeric"]))


@pytest.mark.parametrize(("model", "reason"), [(Branching, "not traceable"), (Random, "other results|not traceable")])
def test_a_model_that_cannot_be_kept_says_so_and_what_to_do(model, reason):
    with pytest.raises(ConfigError, match=reason):
        export_program(model(), inputs())
