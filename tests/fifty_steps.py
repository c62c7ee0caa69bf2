"""Fifty training steps on the same rows, however they are divided among ranks and micro-batches."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from pipeline.config.training import ModelConfig, TrainingConfig
from pipeline.models import build_model
from pipeline.testing import tiny_schema, tiny_values
from pipeline.training.batches import Batch
from pipeline.training.buffers import SharedBuffers
from pipeline.training.collective import Collective
from pipeline.training.compression import build_compression
from pipeline.training.gradients import Gradients
from pipeline.training.objectives import build_objective
from pipeline.training.optimizers import build_optimizer
from pipeline.training.randomness import seed_all
from pipeline.training.step import Learner, Wishes, train_step

STEPS, ROWS = 50, 48
_ONE_AT_A_TIME = threading.Lock()

FLOAT64 = {"precision": "float64", "optimizer": {"name": "AdamW", "learning_rate": 0.01, "weight_decay": 0.01}}
FLOAT32 = {"precision": "float32", "optimizer": {"name": "SGD", "learning_rate": 0.05, "options": {"momentum": 0.9}}}


def learner_for(collective: Collective, **training: Any) -> Learner:
    """A small model without dropout, with clipping and a schedule on."""
    config = TrainingConfig.model_validate(
        {
            "run_url": "/nowhere",
            "clip_norm": 0.5,
            "schedule": {"name": "one_cycle"},
            "micro_batch_size": ROWS,
            **training,
        }
    )
    options = {"hidden": [16, 8], "dropout": 0.0, "norm": "layer"}
    with _ONE_AT_A_TIME:  # ranks that are threads share the generator
        seed_all(1)
        model = build_model(ModelConfig(name="tabular", options=options), SCHEMA)
    collective.barrier()
    model = model.to(getattr(torch, config.precision))
    return Learner(
        model=model,
        objective=build_objective(SCHEMA),
        optimizer=build_optimizer(config.optimizer, model.parameters()),
        gradients=Gradients(
            model.parameters(), build_compression(config.compression, collective, 4), config.bucket_bytes
        ),
        buffers=SharedBuffers(model, collective),
        average=None,
        collective=collective,
        config=config,
        total_steps=STEPS,
    )


SCHEMA = tiny_schema(5, 2, {}, "binary", ())


def global_batch(step: int, rows: int = ROWS) -> Batch:
    """Weighted rows of a step, the same for every division."""
    random = np.random.default_rng([9, step])
    values = tiny_values(SCHEMA, rows, random)
    return Batch(
        {
            "numeric": torch.from_numpy(np.column_stack([values[name] for name in SCHEMA.numeric])),
            "categorical": torch.from_numpy(np.column_stack([values[n] for n in SCHEMA.cardinalities]).astype("int64")),
        },
        torch.from_numpy(values["label"]),
        torch.from_numpy(random.uniform(0, 3, rows).astype("float32")),
    )


def share(batch: Batch, rank: int, world_size: int) -> Batch:
    """Rows of a rank: the first ranks have one more where they cannot be divided."""
    rows = batch.rows // world_size + (np.arange(world_size) < batch.rows % world_size)
    first = int(rows[:rank].sum())
    part = slice(first, first + int(rows[rank]))
    return Batch({n: t[part] for n, t in batch.inputs.items()}, batch.label[part], batch.weight[part])


def weights_after(collective: Collective, steps: int = STEPS, **training: Any) -> np.ndarray:
    """All weights of the model, flat in float64, after training; every seventh batch is a short one."""
    learner = learner_for(collective, **training)
    for step in range(steps):
        batch = global_batch(step, ROWS if step % 7 else 5)
        outcome = train_step(learner, share(batch, collective.rank, collective.world_size), step, Wishes())
        assert not outcome.skipped
    learner.gradients.close()
    return torch.cat([p.detach().double().reshape(-1) for p in learner.model.parameters()]).numpy()
