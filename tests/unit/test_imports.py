"""The import rules of ARCHITECTURE.md: rooms keep to themselves, and heavy libraries have few doors."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(__file__).resolve().parents[2] / "pipeline"
HEAVY = {"pyspark", "torch", "horovod", "petastorm", "mlflow", "sklearn", "pyarrow"}
ARCHITECTURE = PACKAGE.parent / "ARCHITECTURE.md"
CONTRACTS = (
    *("errors", "storage", "config", "dataset", "layout", "long_lists", "plan"),
    *("features", "fingerprint", "metrics", "task", "lease", "stack", "run_folder"),
)
CONTRACT_LIBRARIES = {"numpy", "pandas", "fsspec", "pydantic", "yaml"}


@functools.cache
def _modules() -> dict[str, Path]:
    """Dotted name below `pipeline` -> file."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_modules()[module].read_text())


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Every name that a module imports, at its top or inside a function, but for those that only types need."""
    tree = _tree(module)
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    only_for_types = {id(inner) for block in blocks for inner in ast.walk(block)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in only_for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _room(module: str) -> str:
    return module.split(".")[0]


def _libraries(module: str) -> set[str]:
    ours = set(sys.stdlib_module_names) | {"pipeline", "__future__"}
    return {name.split(".")[0] for name in _imports(module)} - ours


def _rooms_used(module: str) -> set[str]:
    return {name.split(".")[1] for name in _imports(module) if name.startswith("pipeline.")}


MODULES = sorted(name for name in _modules() if name not in ("", "__init__"))


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) in CONTRACTS])
def test_contracts_import_only_contracts_and_light_libraries(module: str) -> None:
    allowed = {*CONTRACTS, "__version__"} | (
        {"training"} if module == "dataset.versions" else set()
    )  # its loader, lazily
    assert _rooms_used(module) <= allowed
    assert _libraries(module) <= CONTRACT_LIBRARIES


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) in ("preparation", "training", "models")])
def test_preparation_and_training_never_meet(module: str) -> None:
    forbidden = {
        "preparation": {"training", "models"},
        "training": {"preparation"},
        "models": {"preparation", "training"},
    }
    above = {"launch", "inference", "tracking", "report", "flow", "before_launch", "stages", "commands", "cli"}
    assert not _rooms_used(module) & (forbidden[_room(module)] | above)


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) in ("training", "models")])
def test_ranks_know_neither_spark_nor_mlflow(module: str) -> None:
    assert not _libraries(module) & {"pyspark", "mlflow"}


def _doors(library: str) -> set[str]:
    return {module for module in MODULES if library in _libraries(module)}


def test_only_tracking_imports_mlflow() -> None:
    assert {_room(module) for module in _doors("mlflow") - {"inference.mlflow_entry"}} <= {"tracking"}


def test_petastorm_has_two_doors_and_horovod_three() -> None:
    assert _doors("petastorm") == {"preparation.petastorm_metadata", "training.reader_petastorm"}
    assert _doors("horovod") == {"training.collective", "launch.horovod_run", "launch.rendezvous"}


def test_nothing_imports_the_command_line() -> None:
    others = (name for name in MODULES if name not in ("cli", "__main__"))
    assert [name for name in others if _rooms_used(name) & {"cli", "commands"}] == []


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not _loaded_by("import pipeline; dir(pipeline)") & (HEAVY | {"numpy", "pandas"})


def test_every_public_name_has_a_type_before_it_is_loaded() -> None:
    (block,) = (node for node in _tree("__init__").body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {alias.asname: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert typed == {name: f"{home}.{name}" for name, home in pipeline._HOMES.items()}
    assert sorted(typed) == pipeline.__all__


def test_the_command_line_starts_without_heavy_libraries() -> None:
    assert not _loaded_by("import pipeline.cli") & HEAVY


def test_serving_loads_neither_spark_horovod_petastorm_nor_mlflow() -> None:
    assert not _loaded_by("import pipeline.inference.serve") & {"pyspark", "horovod", "petastorm", "mlflow"}


UNPICKLERS = {"pickle", "dill", "joblib", "marshal", "shelve"}
RUNNING_TEXT = {"eval", "exec", "torch.load", "torch.export.load", "yaml.unsafe_load"}
# Petastorm's own metadata is a pickle: we write it for stock readers and never read it.
WRITERS_OF_PICKLES = {"preparation.petastorm_metadata"}


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled_and_no_text_is_run(module: str) -> None:
    calls = {ast.unparse(node.func) for node in ast.walk(_tree(module)) if isinstance(node, ast.Call)}
    assert not calls & RUNNING_TEXT
    assert not {call for call in calls if call.endswith((".loads", ".load")) and "pickle" in call}
    if module not in WRITERS_OF_PICKLES:
        assert not {name.split(".")[0] for name in _imports(module)} & UNPICKLERS


@pytest.mark.parametrize("module", [name for name in MODULES if _room(name) == "preparation"])
def test_preparation_uses_no_randomness_of_spark(module: str) -> None:
    names = {node.attr for node in ast.walk(_tree(module)) if isinstance(node, ast.Attribute)}
    assert not names & {"rand", "randn", "randomSplit", "monotonically_increasing_id", "sampleBy"}


def test_the_table_of_rooms_is_complete() -> None:
    table = [line for line in ARCHITECTURE.read_text().splitlines() if line.startswith("| `")]
    named = {name.rstrip("/") for line in table for name in re.findall(r"`([\w/]+)`", line.split("|")[1])}
    assert named == {_room(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_where_it_runs(module: str) -> None:
    docstring = ast.get_docstring(_tree(module)) or ""
    assert any(place in docstring for place in ("DRIVER", "RANK", "EXECUTOR", "ANYWHERE")), module
