"""Code has the same fingerprint in every process, and another one as soon as it does something else."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark import cloudpickle

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.fingerprint import fingerprint, source_fingerprint
from pipeline.task import TrainingTask, UserCode

CELL = """
import dataclasses, functools, enum, math
import numpy as np
import torch

RATE = 0.1
TABLE = {"a": [1, 2], "b": {"x", "y", "z"}}
WEIGHTS = np.arange(3.0)
TENSOR = torch.ones(2, dtype=torch.bfloat16)

class Kind(enum.Enum):
    FAST = 1

@dataclasses.dataclass
class Settings:
    gamma: float = 2.0
    kind: Kind = Kind.FAST

SETTINGS = Settings()

def helper(x):
    return x + 1 if x in {"p", "q", "r"} else other(x)

def other(x, depth=3, *, scale=2):
    return helper(x) * scale

class Base:
    width = 64

    @staticmethod
    def start():
        return 5

class Net(Base):
    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.sizes = [self.width] * 2

    @property
    def size(self):
        return math.sqrt(len(self.sizes))

    def step(self):
        return Net, Settings

def factory(rate):
    return lambda p: [p, rate, RATE, TABLE, WEIGHTS, TENSOR, SETTINGS, helper, Net]

class Called:
    def __init__(self, gamma):
        self.gamma = gamma

    def __call__(self, x):
        return x * self.gamma

@functools.cache
def kept(x):
    return x * 2

CODE = [factory(0.5), Net, functools.partial(other, depth=4), Called(2.0), Called(2.0).__call__, kept]
"""


def codes_of(text: str) -> list[Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(text, namespace)
    codes: list[Any] = namespace["CODE"]
    return codes


def digests(text: str) -> list[str]:
    return [fingerprint(code) for code in codes_of(text)]


def test_driver_and_ranks_agree_whatever_their_hash_seeds_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text(CELL)
    driver = (
        "import sys\nfrom pyspark import cloudpickle\nexec(open('cell.py').read())\n"
        "sys.stdout.buffer.write(cloudpickle.dumps(CODE[:-1]))"  # functools.cache cannot be shipped
    )
    rank = (
        "import sys, pickle\nfrom pipeline.fingerprint import fingerprint\n"
        "print([fingerprint(code) for code in pickle.loads(sys.stdin.buffer.read())])"
    )

    def ran(code: str, seed: str, given: bytes = b"") -> bytes:
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, input=given, capture_output=True, check=True, cwd=tmp_path, env=environment
        ).stdout

    shipped = ran(driver, "1")
    assert {ran(rank, seed, shipped).decode().strip() for seed in ("2", "3")} == {repr(digests(CELL)[:-1])}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("factory(0.5)", "factory(0.6)"),
        ("RATE = 0.1", "RATE = 0.2"),
        ('{"a": [1, 2]', '{"a": [1, 3]'),
        ('"y", "z"', '"y", "w"'),
        ("np.arange(3.0)", "np.arange(1.0, 4.0)"),
        ("torch.ones(2, ", "torch.zeros(2, "),
        ("gamma: float = 2.0", "gamma: float = 3.0"),
        ("x + 1", "x + 2"),
        ('"q", "r"', '"q", "s"'),
        ("depth=3", "depth=5"),
        ("scale=2", "scale=3"),
        ("width = 64", "width = 32"),
        ("return 5", "return 6"),
        ("torch.float32", "torch.float64"),
        ("math.sqrt", "math.exp"),
        ("depth=4", "depth=6"),
        ("CODE = [factory(0.5), Net, functools.partial(other, depth=4), Called(2.0)", "CODE = [0, 0, 0, Called(3.0)"),
        ("x * self.gamma", "x + self.gamma"),
        ("x * 2\n", "x * 3\n"),
    ],
)
def test_whatever_changes_what_code_does_changes_its_fingerprint(old: str, new: str) -> None:
    assert old in CELL
    before, after = set(digests(CELL)), set(digests(CELL.replace(old, new, 1)))
    assert after - before, "nothing has changed"


def test_what_code_does_not_use_changes_nothing() -> None:
    assert digests(CELL) == digests(CELL.replace("import dataclasses", "UNUSED = 1\n\n\nimport dataclasses"))


def test_a_function_of_another_module_counts_with_all_that_it_uses_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace = {"__name__": "__main__"}
    module = tmp_path / "own_losses.py"
    found = []
    for gamma in (2, 3, 2):
        module.write_text(f"import own_losses\nGAMMA = {gamma}\n\n\ndef focal(p):\n    return p * GAMMA\n")
        sys.modules.pop("own_losses", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        exec("import own_losses\ndef loss(p):\n    return own_losses.focal(p)\n", namespace)
        sys.dont_write_bytecode = before
        found.append(fingerprint(namespace["loss"]))
    sys.modules.pop("own_losses")
    assert found[0] == found[2] != found[1]


def test_a_callback_may_gather_what_it_hears(tmp_path: Path) -> None:
    heard: list[int] = []

    def callback(progress: Any, metrics: Any) -> None:
        heard.append(1)

    def task() -> TrainingTask:
        return TrainingTask(
            "data", "id", ModelConfig(), TrainingConfig(run_url="run"), UserCode(callback=callback, loss=loss)
        )

    def loss(predictions: Any, label: Any, weight: Any) -> Any:
        return predictions.sum() * len(heard)

    first = task()
    again = cloudpickle.loads(cloudpickle.dumps(first))
    heard.append(1)
    assert again.identity() == first.identity(), "a task keeps what was found on the driver"
    assert first.differences(task().identity())[0].key == "code.loss"
    assert task().fingerprints["callback"] == first.fingerprints["callback"]


def test_a_model_named_in_the_configuration_counts_with_the_source_of_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    identities = []
    for layers in (1, 2):
        (tmp_path / "own_nets.py").write_text(f"LAYERS = {layers}\n\n\ndef net(schema):\n    return LAYERS\n")
        model = ModelConfig(factory="own_nets:net")
        identities.append(TrainingTask("data", "id", model, TrainingConfig(run_url="run")).identity())
    assert identities[0]["code"]["model"].startswith("own_nets:net ")
    assert identities[0] != identities[1]
    assert "own_nets" not in sys.modules, "nothing is imported to know its source"
    assert source_fingerprint("no_such_module:net") == "no_such_module:net"
