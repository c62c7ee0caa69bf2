"""Names of columns go into SQL through one module, which doubles their backticks."""

from __future__ import annotations

from pathlib import Path

from pipeline import preparation

FOLDER = Path(preparation.__file__).parent


def test_only_one_module_puts_names_between_backticks() -> None:
    spelled = [path.name for path in FOLDER.glob("*.py") if 'F.col(f"`' in path.read_text()]
    assert spelled == []
