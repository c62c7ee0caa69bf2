"""All measurements that the README quotes, one after another, or those named: `python -m benchmarks [NAME ...]`.

`python -m benchmarks pages` measures nothing: it writes the pages anew from what is recorded.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS: dict[str, list[list[str]]] = {
    "launch": [[]],
    "training": [[]],
    "loader": [[]],
    "prepare": [[], ["--scaling", "1,2,4,8", "--only", "package"]],
    "flights": [[]],
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; 1 if one of them failed."""
    if names == ["pages"]:
        return write_pages()
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"benchmarks {sorted(unknown)} do not exist; expected some of {', '.join(BENCHMARKS)}, or pages")
    failed = []
    for name in names or BENCHMARKS:
        print(f"=== {name}", flush=True)
        for arguments in BENCHMARKS[name]:
            if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments]).returncode:
                failed.append(" ".join([name, *arguments]))
    if failed:
        print(f"failed: {', '.join(failed)}")
    return int(bool(failed))


def write_pages() -> int:
    """Each page of recorded results; none of them needs what it measures."""
    from benchmarks.pages import PAGES
    from benchmarks.results_file import write_page

    for name, page in PAGES.items():
        write_page(name, page)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
