"""ANYWHERE. How a version becomes visible, and the one way that readers find and open it."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import long_lists, storage
from pipeline.dataset.manifest import Manifest
from pipeline.dataset.schema import DatasetSchema
from pipeline.errors import InputMissingError, StorageError

if TYPE_CHECKING:
    from pipeline.training.loader import Loader

MANIFEST_FORMAT = ("dataset-manifest", 1)
COMMIT_FORMAT = ("dataset-commit", 1)


def version_url(url: str, content_id: str) -> str:
    """The folder of a version."""
    return storage.join(url, "versions", content_id)


def commit_numbers(url: str) -> list[int]:
    """The numbers of the published versions, oldest first."""
    names = storage.list_names(storage.join(url, "_commits"))
    return sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())


def commit_version(url: str, content_id: str, manifest_sha256: str, check: Callable[[], None] = lambda: None) -> int:
    """Make a complete version the newest; returns its commit number. The only atomic step of publishing.

    A version that is already the newest is not committed twice. Each number is chosen before ``check`` may refuse it:
    whoever stalls after the check finds the number taken by its successor, and is checked again.
    """
    while True:
        numbers = commit_numbers(url)
        if numbers and read_commit(url, numbers[-1])["content_id"] == content_id:
            return numbers[-1]
        number = numbers[-1] + 1 if numbers else 1
        body = {"content_id": content_id, "manifest_sha256": manifest_sha256}
        check()
        data = storage.format_json(*COMMIT_FORMAT, {**body, "digest": storage.sha256_of(body)})
        if storage.put_if_absent(storage.join(url, "_commits", f"{number}.json"), data):
            return number


def read_commit(url: str, number: int) -> dict[str, Any]:
    """One pointer, its own digest checked."""
    path = storage.join(url, "_commits", f"{number}.json")
    body = storage.read_json(path, *COMMIT_FORMAT)
    digest = body.pop("digest", None)
    if digest != storage.sha256_of(body):
        raise StorageError(f"{path} is corrupt; expected digest {digest}; restore the file or publish again")
    return body


def read_manifest(url: str, content_id: str, sha256: str | None = None) -> Manifest:
    """The manifest of a version, checked against the sha256 that its commit holds."""
    path = storage.join(version_url(url, content_id), "manifest.json")
    data = storage.read_bytes(path)
    actual = hashlib.sha256(data).hexdigest()
    if sha256 is not None and actual != sha256:
        raise StorageError(f"{path} is corrupt: sha256 {actual}; expected {sha256}; restore the file or publish again")
    value = storage.parse_json(path, data, *MANIFEST_FORMAT)
    return Manifest.from_json(long_lists.taken_back(version_url(url, content_id), value))


@dataclass(frozen=True)
class Dataset:
    """A published version of a dataset."""

    url: str
    manifest: Manifest

    @classmethod
    def open(cls, url: str, content_id: str | None = None) -> Dataset:
        """Open the newest version, or a given one.

        Raises:
            InputMissingError: nothing is published there.
            StorageError: the manifest is corrupt.
        """
        for number in reversed(commit_numbers(url)):
            commit = read_commit(url, number)
            if content_id in (None, commit["content_id"]):
                return cls(url, read_manifest(url, commit["content_id"], commit["manifest_sha256"]))
        wanted = "published dataset" if content_id is None else f"version {content_id}"
        raise InputMissingError(f"{url} holds no {wanted}; expected _commits/<n>.json; run `pipeline prepare` first")

    @property
    def content_id(self) -> str:
        """Names what the rows are; see `content_id`."""
        return self.manifest.content_id

    @property
    def schema(self) -> DatasetSchema:
        """Names, dtypes and roles of the columns."""
        return self.manifest.schema

    def loader(self, split: str = "train", **options: Any) -> Loader:
        """A torch iterable over a split, without Java, Spark or Horovod; options as of its class.

        The version is not collected as long as the iterable is there.
        """
        from pipeline.dataset.holds import hold_while_alive
        from pipeline.training.loader import Loader

        loader = Loader(self, split, **options)
        hold_while_alive(self, loader)
        return loader

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{self.manifest.rows(name):,}</td><td>{len(parts)}</td></tr>"
            for name, parts in self.manifest.splits.items()
        )
        counts = html.escape(json.dumps(self.manifest.accounting.as_rows()))
        return (
            f"<b>Dataset</b> {html.escape(self.url)} <code>{self.content_id[:12]}</code>"
            f"<table><tr><th>split</th><th>rows</th><th>files</th></tr>{rows}</table><p>{counts}</p>"
        )
