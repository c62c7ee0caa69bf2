"""RANK. What of a training goes into a checkpoint, and how a training goes on from one."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.task import Reporter, TrainingTask
from pipeline.training.best import better_of, kept_best
from pipeline.training.checkpoint import Checkpoint, latest_good, open_checkpoint, step_url, sweep
from pipeline.training.checkpoint_writer import CheckpointWriter, Snapshot
from pipeline.training.collective import Collective
from pipeline.training.optimizer_state import load_optimizer_state, optimizer_state
from pipeline.training.progress import Progress, Validation
from pipeline.training.randomness import load_random_states, random_states
from pipeline.training.same_weights import agree_on_weights
from pipeline.training.states import load_states, states_of
from pipeline.training.step import Learner


def checkpoint_writer(task: TrainingTask, collective: Collective, reporter: Reporter) -> CheckpointWriter:
    """A writer whose temporary folders have the same new name on all ranks."""
    attempt = collective.broadcast_object(uuid.uuid4().hex)
    run_url, keep = task.training.run_url, task.training.checkpoint.keep
    return CheckpointWriter(run_url, collective.rank, collective.world_size, attempt, keep, reporter.event)


def snapshot(task: TrainingTask, learner: Learner, progress: Progress) -> Snapshot:
    """Copy everything out of training's way; called on all ranks, which have to agree on the weights.

    Raises:
        RankFailedError: they have trained apart.
    """
    agree_on_weights(learner.model, learner.collective, progress.step)
    tensors, rest = optimizer_state(learner.optimizer)
    others, other_states = states_of(learner.others)
    own, own_state = random_states()
    own = {f"random.{name}": value for name, value in own.items()}
    own |= {f"compression.{name}": value for name, value in learner.gradients.compression.state().items()}
    files = {"model": dict(learner.model.state_dict()), "optimizer": tensors}
    if learner.average is not None:
        files["ema"] = learner.average.state()
    if others:
        files["others"] = others
    progress.loss_scale = (learner.scale.value, learner.scale.good_steps)
    first = learner.collective.rank == 0
    return Snapshot(
        step=progress.step,
        files={name: _copied(values) for name, values in files.items()} if first else {},
        state={
            "identity": task.identity(),
            "progress": progress.to_json(),
            "optimizer": rest,
            "others": other_states,
            "shared_memory": learner.collective.shares_memory,
        },
        own=_copied(own),
        own_state={"random": own_state},
        best_step=progress.best.step if progress.best else None,
    )


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def resume(task: TrainingTask, learner: Learner, reporter: Reporter) -> Progress:
    """Go on from the newest intact checkpoint, or from the start; rank 0 looks for it.

    Raises:
        ConfigError: the checkpoint is of another training; every differing key is named.
    """
    collective, run_url = learner.collective, task.training.run_url
    found = None
    if collective.rank == 0:
        sweep(run_url)
        checkpoint = latest_good(run_url, reporter.event)
        found = None if checkpoint is None else checkpoint.step
    found = collective.broadcast_object(found)
    if found is None:
        return Progress()
    checkpoint = open_checkpoint(step_url(run_url, found))
    state = checkpoint.state()
    _refuse_another_training(task, state["identity"])
    _restore(learner, checkpoint, state, reporter)
    progress = Progress.from_json(state["progress"])
    if collective.rank == 0:
        reporter.resumed(found)
        reporter.event(f"resumed from the checkpoint of step {found}")
        better = better_of(learner, task.user_code.loop is not None)
        progress.best = kept_best(run_url, progress, checkpoint, better, reporter.event)
    best = collective.broadcast_object(None if progress.best is None else dataclasses.asdict(progress.best))
    progress.best = None if best is None else Validation.from_json(best)
    learner.rate_drops = progress.rate_drops
    if progress.loss_scale is not None:
        learner.scale.value, learner.scale.good_steps = progress.loss_scale
    return progress


def _refuse_another_training(task: TrainingTask, saved: dict[str, Any]) -> None:
    if differences := task.differences(saved):
        advice = f"choose another training.run_url than {task.training.run_url}, or remove that folder"
        raise ConfigError(
            *(
                f"{each.key} is {each.wanted}; expected {each.saved} as in the run folder; {advice}"
                for each in differences
            )
        )


def _restore(learner: Learner, checkpoint: Checkpoint, state: dict[str, Any], reporter: Reporter) -> None:
    learner.model.load_state_dict(checkpoint.tensors("model"))
    learner.buffers.keep()
    tensors = {name: tensor.to(learner.device) for name, tensor in checkpoint.tensors("optimizer").items()}
    load_optimizer_state(learner.optimizer, tensors, state["optimizer"])
    if learner.average is not None:
        learner.average.load(checkpoint.tensors("ema"))
    load_states(learner.others, checkpoint.tensors("others"), state.get("others", {}), learner.device)
    collective = learner.collective
    if checkpoint.world_size != collective.world_size:
        reporter.event(
            f"resuming on {collective.world_size} ranks what {checkpoint.world_size} began: "
            "what each rank kept for itself (random states, compression residuals) starts anew"
        )
        return
    if collective.world_size > 2 and state.get("shared_memory", False) != collective.shares_memory:
        reporter.event("resuming in another place, where sums of ranks add up in another order: last bits may differ")
    own, rest = checkpoint.own(collective.rank)
    load_random_states(_under(own, "random."), rest["random"])
    residuals = {name: tensor.to(learner.device) for name, tensor in _under(own, "compression.").items()}
    learner.gradients.compression.load(residuals)


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
