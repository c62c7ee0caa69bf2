"""Two processes with torch's DistributedDataParallel over Gloo and a bare loop, beside which the engine's ranks stand.

    python -m benchmarks.ddp DATASET_URL ROWS_PER_STEP RANK PORT

The same model, optimizer and rows as `benchmarks.training`, from tensors in memory, without validation, checkpoints,
accounting or a driver.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.training import ModelConfig
from pipeline.dataset import Dataset
from pipeline.models import build_model
from pipeline.training.batches import Batch

EPOCHS = 4
LEARNING_RATE = 0.002


def both(dataset_url: str, batch: int) -> float:
    """Rows a second of two ranks together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.ddp", dataset_url, str(batch)]
    started = [subprocess.Popen([*command, str(rank), str(port)], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    return sum(float(json.loads(process.communicate()[0])) for process in started)


def one(dataset_url: str, batch: int, rank: int, port: str) -> float:
    """Rows a second of this rank, the median of the epochs after the first."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    rows = _share(dataset_url, rank)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    common = torch.tensor(rows.rows // batch)
    dist.all_reduce(common, dist.ReduceOp.MIN)
    steps = int(common)
    torch.manual_seed(0)
    model = DistributedDataParallel(build_model(ModelConfig(name="tabular"), Dataset.open(dataset_url).schema))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    rates = []
    for epoch in range(EPOCHS):
        order = torch.randperm(rows.rows, generator=torch.Generator().manual_seed(epoch)).split(batch)
        dist.barrier()
        began = time.monotonic()
        for picked in order[:steps]:
            inputs = {name: values[picked] for name, values in rows.inputs.items()}
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(model(inputs), rows.label[picked]).backward()
            optimizer.step()
        rates.append(steps * batch / (time.monotonic() - began))
    dist.destroy_process_group()
    return statistics.median(rates[1:])


def _share(dataset_url: str, rank: int) -> Batch:
    """This rank's rows of an epoch, as one batch."""
    loader = Dataset.open(dataset_url).loader("train", rank=rank, world_size=2)
    batches = [Batch({name: x.clone() for name, x in batch.inputs.items()}, batch.label.clone()) for batch in loader]
    inputs = {name: torch.cat([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    return Batch(inputs, torch.cat([batch.label for batch in batches]))


if __name__ == "__main__":
    url, rows, rank, port = sys.argv[1:]
    print(json.dumps(one(url, int(rows), int(rank), port)))
