"""ANYWHERE. What a published dataset is: schema, manifest, versions, and the one way that readers find them.

<url>/_commits/<n>.json           put-if-absent pointers: the only way a version becomes visible
<url>/versions/<content id>/      part files, statistics.json, manifest.json: never changed afterwards
"""

from __future__ import annotations

from pipeline.dataset.manifest import SPLITS, Accounting, Manifest, PartFile, SplitName, content_id
from pipeline.dataset.schema import Column, DatasetSchema, PackedColumn, Role, schema_from_json
from pipeline.dataset.versions import (
    MANIFEST_FORMAT,
    Dataset,
    commit_numbers,
    commit_version,
    read_commit,
    read_manifest,
    version_url,
)

__all__ = [
    "MANIFEST_FORMAT",
    "SPLITS",
    "Accounting",
    "Column",
    "Dataset",
    "DatasetSchema",
    "Manifest",
    "PackedColumn",
    "PartFile",
    "Role",
    "SplitName",
    "commit_numbers",
    "commit_version",
    "content_id",
    "read_commit",
    "read_manifest",
    "schema_from_json",
    "version_url",
]
