"""RANK. The sum of gradients over rows, micro-batches and ranks, reduced while the backward pass still runs.

Gradients live in fixed flat buckets, last layers first: the order in which backward finishes them. A bucket's
reduction starts when its last gradient is there, and always in bucket order, so that every run adds the
same numbers in the same order: the base of exact resume.

How often a backward pass adds to a gradient is learned from the passes before: once as a rule, but several times for
a block that is used several times under reentrant checkpointing, which has a backward pass inside for each use. So the
first pass of a process only counts, and its reductions follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from pipeline.errors import RankFailedError
from pipeline.training.compression import Bucket, Compression


class Gradients:
    """The gradients of a model's parameters.

    Every rank back-propagates the weighted SUM of losses over its rows; after `reduce` the gradients are
    those of the sum over all rows of the global batch, whatever its division.

    Args:
        parameters: of the model; those that do not require gradients are left out.
        bucket_bytes: size of a bucket; a larger parameter has one of its own.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], compression: Compression, bucket_bytes: int) -> None:
        self.compression = compression
        self.buckets = fixed_buckets([p for p in parameters if p.requires_grad], bucket_bytes)
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._hook(number, place, view))
            for number, bucket in enumerate(self.buckets)
            for place, (parameter, view) in enumerate(zip(bucket.parameters, bucket.views, strict=True))
        ]
        self._total_weight: Callable[[], float] | None = None
        self._times = [[1] * len(bucket.parameters) for bucket in self.buckets]
        self._counted = False
        self._left: list[list[int]] = []  # additions that each gradient of each bucket still waits for
        self._missing: list[int] = []  # gradients that each bucket still waits for
        self._running: list[Iterator[None]] = []
        self.restore()

    def zero(self) -> None:
        """Forget the gradients of the step before."""
        for bucket in self.buckets:
            bucket.flat.zero_()

    def arm(self, total_weight: Callable[[], float]) -> None:
        """Let the next backward pass, the last of this step, start reductions as it goes."""
        self._total_weight = total_weight
        self._left = [list(times) for times in self._times]
        self._missing = [len(times) for times in self._times]
        self._running = []

    def reduce(self) -> None:
        """Start what backward has not started (parameters without gradient, no rows at all), wait for everything."""
        self._counted = self._counted or self._left != self._times
        while len(self._running) < len(self.buckets):
            self._start_next()
        running = self._running
        while running:
            running = [reduction for reduction in running if _advance(reduction)]
        self._total_weight = None

    def restore(self) -> None:
        """Give parameters the gradients back that an optimizer's ``zero_grad`` has set to None."""
        for bucket in self.buckets:
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view

    def norm(self) -> float:
        """The 2-norm of all gradients; infinite or NaN when one of them is."""
        if not self.buckets:
            return 0.0
        norms = [torch.linalg.vector_norm(bucket.flat, dtype=torch.float64) for bucket in self.buckets]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def scale(self, factor: float) -> None:
        """Multiply all gradients."""
        for bucket in self.buckets:
            bucket.flat.mul_(factor)

    def clip_value(self, bound: float) -> None:
        """Cut all gradients to [-bound, bound]."""
        for bucket in self.buckets:
            bucket.flat.clamp_(-bound, bound)

    def add_signs(self, factor: float) -> None:
        """Add the gradient of ``factor`` times the sum of absolute weights."""
        for bucket in self.buckets:
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                view.add_(torch.sign(parameter.detach()), alpha=factor)

    def close(self) -> None:
        """Take the hooks and the buckets back from the model."""
        for hook in self._hooks:
            hook.remove()
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.grad = None

    def _hook(self, number: int, place: int, view: Tensor) -> Callable[[Tensor], None]:
        def gradient_is_there(parameter: Tensor) -> None:
            if parameter.grad is not view:  # somebody has set it to None since
                assert parameter.grad is not None
                view.copy_(parameter.grad)
                parameter.grad = view
            if self._total_weight is not None:
                self._note(number, place)
                if self._counted:
                    self._start_ready()

        return gradient_is_there

    def _note(self, number: int, place: int) -> None:
        """Something was added to a gradient."""
        if number < len(self._running):
            shape = tuple(self.buckets[number].views[place].shape)
            raise RankFailedError(
                f"a backward pass has added to a gradient of shape {shape} more often than any before it, when it was "
                "on its way to the other ranks; expected the same number of times in every step; give "
                "torch.utils.checkpoint use_reentrant=False"
            )
        left = self._left[number]
        left[place] -= 1
        if left[place] == 0:
            self._missing[number] -= 1
        elif left[place] < 0:
            self._times[number][place] += 1

    def _start_ready(self) -> None:
        while len(self._running) < len(self.buckets) and not self._missing[len(self._running)]:
            self._start_next()

    def _start_next(self) -> None:
        assert self._total_weight is not None, "arm() comes before the last backward pass of a step"
        reduction = self.compression.reduce(self.buckets[len(self._running)], self._total_weight)
        next(reduction)
        self._running.append(reduction)


def _advance(reduction: Iterator[None]) -> bool:
    """Whether a reduction has more to do after its next part."""
    try:
        next(reduction)
    except StopIteration:
        return False
    return True


def fixed_buckets(parameters: list[torch.nn.Parameter], bucket_bytes: int) -> list[Bucket]:
    """Cut the parameters, last first, into buckets of one dtype and device of about ``bucket_bytes``."""
    groups: list[list[torch.nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        bytes_ = parameter.numel() * parameter.element_size()
        fits = groups and _alike(groups[-1][0], parameter) and size + bytes_ <= bucket_bytes
        if not fits:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += bytes_
    return [_bucket(f"gradients {number}", group) for number, group in enumerate(groups)]


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device


def _bucket(name: str, parameters: list[torch.nn.Parameter]) -> Bucket:
    flat = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters), requires_grad=False)
    views, start = [], 0
    for parameter in parameters:
        views.append(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()
    return Bucket(name, flat, parameters, views)
