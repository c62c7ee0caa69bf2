"""One way of loading, run as a child of `benchmarks/loader.py` in the environment where it is installed.

    python loader_contenders.py NAME FOLDER ROWS BATCH_SIZE

Reads ``<folder>/raw/*.npy`` (the rows) or what `benchmarks/loader.py` wrote for it. Prints ``ready`` and the version
of the library when its own files are there; then for every line on stdin (round, seconds in which epochs may begin,
seconds after which an epoch is stopped) loads and prints a line of JSON. This file imports nothing of
the package outside the classes that measure it, so that it runs in environments of other libraries.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import types
import warnings
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np

warnings.simplefilter("ignore")
SHUFFLE_BUFFER = 100_000


class Contender:
    """An epoch gives batches as (labels, anything); labels are the row numbers, so that each row can be counted."""

    library = ""

    def __init__(self, folder: Path, rows: int, batch_size: int) -> None:
        self.folder, self.rows, self.batch_size = folder, rows, batch_size
        self.prepare()

    def prepare(self) -> None:
        return

    def arrays(self) -> dict[str, np.ndarray]:
        return {path.stem: np.load(path, mmap_mode="r") for path in sorted((self.folder / "raw").glob("*.npy"))}

    def batches(self, epoch: int):
        raise NotImplementedError


class Ours(Contender):
    """This package's loader through Petastorm's Reader."""

    options: dict = {}

    def prepare(self) -> None:
        from pipeline.dataset import Dataset
        from pipeline.training.loader import Loader

        dataset = Dataset.open(str(self.folder / "dataset"))
        self.loader = Loader(dataset, global_batch_size=self.batch_size, **self.options)

    def batches(self, epoch: int):
        return ((batch.label, batch.inputs) for batch in self.loader)


class OursCached(Ours):
    """... from its in-memory cache."""

    options = {"cache_bytes": 1 << 40}


class OursPyarrow(Ours):
    """... without Petastorm."""

    options = {"reader": "pyarrow"}


class RawScan(Contender):
    """pyarrow's own batches of the same columns of the same files, unshuffled, as tensors."""

    def batches(self, epoch: int):
        from pipeline.bench import raw_scan
        from pipeline.dataset import Dataset

        dataset = Dataset.open(str(self.folder / "dataset"))
        return ((batch[-1], batch) for batch in raw_scan(dataset, "train", self.batch_size))


class RawRowGroups(Contender):
    """pyarrow reading the same columns of whole row groups, unshuffled, and giving nothing but the label out."""

    def batches(self, epoch: int):
        import pyarrow.parquet as pq
        import torch

        from pipeline.dataset import Dataset

        dataset = Dataset.open(str(self.folder / "dataset"))
        names = [*(packed.name for packed in dataset.schema.packed), "label"]
        for part in dataset.manifest.splits["train"]:
            file = pq.ParquetFile(os.path.join(dataset.url, part.path))
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=names, use_threads=False)
                yield torch.from_numpy(table["label"].to_numpy()), table


class Tensors(Contender):
    """Tensors that are in memory already, one gather each per batch: the limit of shuffling all rows at once."""

    def prepare(self) -> None:
        import torch

        arrays = {name: torch.from_numpy(np.array(array)) for name, array in self.arrays().items()}
        self.tensors = {name: t.long() if t.dtype == torch.int32 else t for name, t in arrays.items()}

    def batches(self, epoch: int):
        import torch

        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(epoch))
        for start in range(0, self.rows, self.batch_size):
            index = order[start : start + self.batch_size]
            batch = {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}
            yield batch["label"], batch


class Petastorm(Contender):
    """Stock Petastorm with its vectorised loader and a shuffling queue, one reader thread."""

    library = "petastorm"
    layout = "wide"
    loader_name = "BatchedDataLoader"

    def batches(self, epoch: int):
        from petastorm import make_batch_reader, pytorch

        loader_class = getattr(pytorch, self.loader_name)
        reader = make_batch_reader(
            (self.folder / self.layout).as_uri(), num_epochs=1, workers_count=1, seed=epoch + 1, shuffle_row_groups=True
        )
        loader = loader_class(reader, batch_size=self.batch_size, shuffling_queue_capacity=SHUFFLE_BUFFER)
        try:
            for batch in loader:
                yield batch["label"], batch
        finally:
            reader.stop()
            reader.join()


class PetastormList(Petastorm):
    """... on list columns."""

    layout = "list"


class PetastormRows(Petastorm):
    """... with its loader that goes row by row."""

    loader_name = "DataLoader"


class Mosaic(Contender):
    """mosaicml-streaming's StreamingDataset over local MDS files, one worker."""

    library = "mosaicml-streaming"

    def prepare(self) -> None:
        stand_in_for_torchvision()
        from streaming import MDSWriter
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
        out = self.folder / "mds"
        if (out / "index.json").exists():
            return
        arrays = self.arrays()
        columns = {
            name: "float32" if array.ndim == 1 else f"ndarray:{array.dtype.name}:{','.join(map(str, array.shape[1:]))}"
            for name, array in arrays.items()
        }
        with MDSWriter(out=str(out), columns=columns) as writer:
            for row in range(self.rows):
                writer.write(
                    {name: np.asarray(array[row]) if array.ndim > 1 else array[row] for name, array in arrays.items()}
                )

    def batches(self, epoch: int):
        from streaming import StreamingDataset
        from torch.utils.data import DataLoader

        dataset = StreamingDataset(
            local=str(self.folder / "mds"), shuffle=True, shuffle_seed=epoch, batch_size=self.batch_size
        )
        for batch in DataLoader(dataset, batch_size=self.batch_size, num_workers=1):
            yield batch["label"], batch


def stand_in_for_torchvision() -> None:
    """mosaicml-streaming imports torchvision for its image datasets; the usual build does not import without CUDA."""
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, ImportError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            module = sys.modules[f"torchvision{name}"] = types.ModuleType(f"torchvision{name}")
            module.__spec__ = ModuleSpec(module.__name__, None)
        sys.modules["torchvision.datasets"].VisionDataset = object
        sys.modules["torchvision.transforms.functional"].to_tensor = None


class HuggingFace(Contender):
    """Hugging Face datasets: an Arrow dataset in torch format, streamed with a shuffle buffer."""

    library = "datasets"

    def prepare(self) -> None:
        from datasets import load_from_disk

        out = self.folder / "hf"
        if not out.exists():
            self.write(str(out))
        self.dataset = load_from_disk(str(out))

    def write(self, out: str) -> None:
        from datasets import Array2D, Dataset, Features, Sequence, Value, concatenate_datasets

        arrays = self.arrays()
        features = Features(
            {
                name: Value(array.dtype.name)
                if array.ndim == 1
                else Sequence(Value(array.dtype.name), length=array.shape[1])
                if array.ndim == 2
                else Array2D(array.shape[1:], array.dtype.name)
                for name, array in arrays.items()
            }
        )
        pieces = []
        for start in range(0, self.rows, 10_000):
            stop = min(self.rows, start + 10_000)
            values = {name: np.array(array[start:stop]) for name, array in arrays.items()}
            pieces.append(Dataset.from_dict(values, features=features))
        concatenate_datasets(pieces).save_to_disk(out, num_shards=8)

    def batches(self, epoch: int):
        stream = self.dataset.to_iterable_dataset(num_shards=8)
        shuffled = stream.shuffle(seed=epoch, buffer_size=SHUFFLE_BUFFER).with_format("torch")
        for batch in shuffled.iter(batch_size=self.batch_size):
            yield batch["label"], batch


class HuggingFaceMap(HuggingFace):
    """... read by random indices, a batch at a time."""

    def batches(self, epoch: int):
        for batch in self.dataset.with_format("torch").shuffle(seed=epoch).iter(batch_size=self.batch_size):
            yield batch["label"], batch


class WebDatasetTar(Contender):
    """WebDataset over local tar files of .npy members, with a shuffle buffer, one worker."""

    library = "webdataset"

    def prepare(self) -> None:
        import webdataset

        out = self.folder / "tar"
        if out.exists():
            return
        arrays = self.arrays()
        out.mkdir()
        with webdataset.ShardWriter(str(out / "%05d.tar"), maxcount=20_000, verbose=0) as writer:
            for row in range(self.rows):
                members = {f"{name}.npy": np.asarray(array[row]) for name, array in arrays.items()}
                writer.write({"__key__": f"{row:09d}", **members})

    def batches(self, epoch: int):
        import torch
        import webdataset

        names = [path.stem for path in sorted((self.folder / "raw").glob("*.npy"))]
        urls = sorted(str(path) for path in (self.folder / "tar").glob("*.tar"))
        rows = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=epoch).shuffle(10_000).decode()
        batched = rows.to_tuple(*(f"{name}.npy" for name in names)).batched(self.batch_size, partial=True)
        for batch in webdataset.WebLoader(batched, batch_size=None, num_workers=1):
            tensors = dict(zip(names, (torch.as_tensor(np.asarray(column)) for column in batch), strict=True))
            yield tensors["label"], tensors


CONTENDERS = {
    "ours": Ours,
    "ours cached": OursCached,
    "ours pyarrow": OursPyarrow,
    "raw scan": RawScan,
    "raw row groups": RawRowGroups,
    "tensors": Tensors,
    "petastorm wide": Petastorm,
    "petastorm list": PetastormList,
    "petastorm rows": PetastormRows,
    "mosaic": Mosaic,
    "huggingface": HuggingFace,
    "huggingface map": HuggingFaceMap,
    "webdataset": WebDatasetTar,
}


def load(contender: Contender, number: int, seconds: float, limit_seconds: float) -> dict[str, float]:
    """Consume epochs for some seconds, at least one, or what comes of one in time; counts rows and adds up numbers."""
    rows, total, epochs, stopped = 0, 0.0, 0, False
    before, started = _cpu(), time.perf_counter()
    while not stopped and (not epochs or time.perf_counter() - started < seconds):
        began, rows_before = time.perf_counter(), rows
        for label, _ in contender.batches(number * 1000 + epochs):
            rows += len(label)
            total += float(label.double().sum())
            stopped = rows - rows_before < contender.rows and time.perf_counter() - began > limit_seconds
            if stopped:
                break
        epochs += 1
    took = time.perf_counter() - started
    cpu = _cpu() - before
    return {"rows": rows, "total": total, "epochs": epochs, "seconds": took, "cpu": cpu, "stopped": stopped}


def _cpu() -> float:
    uses = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main() -> None:
    """Serve epochs over stdin and stdout."""
    import torch

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not come between
    contender = CONTENDERS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    version = metadata.version(contender.library) if contender.library else ""
    print("ready", version, file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(load(contender, *map(int, line.split()))), file=answers, flush=True)


if __name__ == "__main__":
    main()
