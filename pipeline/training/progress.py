"""RANK. How far a run has come: plain numbers, the same on every rank, saved with every checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import storage
from pipeline.errors import InterruptedRunError
from pipeline.training.step import Outcome


@dataclass(frozen=True)
class Validation:
    """What a validation came to: the value of the metric that chooses, and all metrics.

    Attributes:
        epoch: in which it took place, or at whose end; counted from 1.
        step: after which it took place.
    """

    epoch: int
    step: int
    value: float
    metrics: Mapping[str, float]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Validation:
        """From plain values as `pipeline.storage` writes them."""
        chosen = storage.numbers({"value": value["value"]})
        return cls(value["epoch"], value["step"], metrics=storage.numbers(value["metrics"]), **chosen)


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: steps done, skipped ones included.
        epoch: epochs finished; ``deals`` is the position in the next one: [world_size, steps done] in turn.
        rows: rows that went into the weights.
        epoch_loss: weighted sum of losses of the epoch under way; ``epoch_weight`` its weight.
        skipped: steps whose loss or gradient was not finite, ``epoch_skipped`` of them in the epoch under way and
            ``skipped_in_a_row`` since the last one that moved the weights.
        best: the validation by which the model is chosen; ``validated`` is the last one.
        without_better: validations since the best one.
        rate_drops: how often the plateau schedule has lowered the learning rate.
        loss_scale: for float16: the factor, and good steps since it changed.
        stopped_early: no further step is wanted; once set, also of a resumed run.
    """

    step: int = 0
    epoch: int = 0
    deals: list[list[int]] = field(default_factory=list)
    rows: int = 0
    epoch_loss: float = 0.0
    epoch_weight: float = 0.0
    skipped: int = 0
    epoch_skipped: int = 0
    skipped_in_a_row: int = 0
    best: Validation | None = None
    validated: Validation | None = None
    without_better: int = 0
    rate_drops: int = 0
    loss_scale: tuple[float, int] | None = None
    stopped_early: bool = False

    @property
    def steps_in_epoch(self) -> int:
        """Steps done in the epoch under way, by whatever number of ranks."""
        return sum(steps for _, steps in self.deals)

    def count_step(self, outcome: Outcome, world_size: int) -> None:
        """After a step."""
        if not self.deals or self.deals[-1][0] != world_size:
            self.deals.append([world_size, 0])
        self.deals[-1][1] += 1
        self.step += 1
        if outcome.skipped:
            self.skipped += 1
            self.epoch_skipped += 1
            self.skipped_in_a_row += 1
            return
        self.rows += outcome.rows
        self.epoch_loss += outcome.loss
        self.epoch_weight += outcome.weight
        if outcome.weight:
            self.skipped_in_a_row = 0

    def count_epoch(self) -> None:
        """After an epoch and its validation."""
        self.epoch += 1
        self.deals = []
        self.epoch_loss = self.epoch_weight = 0.0
        self.epoch_skipped = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """What `to_json` gave, also that of an earlier version, which knew less of skipped steps and validations."""
        known = dict(value)
        known.pop("validated_step", None)
        for name in ("best", "validated"):
            known[name] = Validation.from_json(value[name]) if value.get(name) is not None else None
        if known["best"] is not None and known["best"].step == value.get("validated_step"):
            known["validated"] = known["best"]
        return cls(**known)


def interruption(progress: Progress) -> InterruptedRunError:
    """What a training ends with that was told to, when it is saved."""
    return InterruptedRunError(
        f"training was stopped after step {progress.step}; expected to run to the end; "
        "run the same command again to resume from there"
    )
