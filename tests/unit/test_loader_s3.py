"""A real S3 protocol server, started by the test; credentials and address come from the environment."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest

from pipeline import storage
from pipeline.dataset import Dataset
from pipeline.errors import StorageError
from pipeline.testing import tiny_dataset
from pipeline.training import checks
from pipeline.training.loader import Loader
from tests.stacks import READERS

pytestmark = pytest.mark.skipif(
    find_spec("moto") is None or find_spec("s3fs") is None, reason="needs moto[server] and s3fs"
)
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(autouse=True)
def fresh_process():
    """Files count as never opened before."""
    checks.forget()


@pytest.fixture
def server(free_port, monkeypatch):
    """The server's address."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    address = f"http://127.0.0.1:{free_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", address)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(free_port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    pytest.fail("the S3 server did not answer")


@pytest.fixture
def bucket(server):
    """A bucket's url, and its filesystem."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem(endpoint_url=server)
    filesystem.mkdir("data")
    yield "s3://data/a b[c]"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("reader", READERS)
def test_a_dataset_on_s3_is_published_and_read_like_a_local_one(bucket, tmp_path, reader):
    rows = {"train": 200}
    tiny_dataset(bucket, rows=rows)
    assert storage.creates_exclusively(bucket)
    local = tiny_dataset(str(tmp_path / "data"), rows=rows)
    opened = Dataset.open(bucket)
    orders = []
    for dataset, options in ((local, {}), (opened, {}), (opened, {"cache_folder": str(tmp_path / "cache")})):
        loader = Loader(dataset, global_batch_size=32, with_ids=True, reader=reader, **options)
        orders.append([id_ for batch in loader for id_ in batch.ids["id"].tolist()])
    assert sorted(orders[0]) == list(range(200))
    assert orders[0] == orders[1] == orders[2]
    text = str(opened.manifest.to_json())
    assert not any(secret in text for secret in (CREDENTIALS["AWS_SECRET_ACCESS_KEY"], "test-key"))


def test_a_missing_object_is_named(bucket):
    import s3fs

    dataset = tiny_dataset(bucket, rows={"train": 200})
    path = f"{bucket}/{dataset.manifest.splits['train'][0].path}"
    s3fs.S3FileSystem().rm_file(path)
    with pytest.raises(StorageError, match="missing") as raised:
        list(Loader(dataset))
    assert path in str(raised.value)
