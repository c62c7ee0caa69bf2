"""RANK. How a bucket of gradients is summed over ranks: as it is, in 16 bits, or as low-rank factors.

A reduction is a generator: it runs up to the next collective, starts that and yields, so that the first
collective of a bucket overlaps the backward pass and the later ones overlap those of other buckets.
When it ends, ``bucket.flat`` holds the sum over all ranks, bit-equal on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from pipeline.training.collective import Collective

CompressionName = Literal["none", "fp16", "bf16", "powersgd"]

_FP16_TARGET = 32768.0
"""Half of what float16 can hold: single values have to fit, no sums, which are made in float32."""


@dataclass
class Bucket:
    """Gradients of several parameters side by side.

    Attributes:
        flat: all values; ``views`` are windows into it, shaped like the parameters.
    """

    name: str
    flat: Tensor
    parameters: list[torch.nn.Parameter]
    views: list[Tensor]


class Compression(Protocol):
    """One way to sum buckets over ranks."""

    def reduce(self, bucket: Bucket, total_weight: Callable[[], float]) -> Iterator[None]:
        """Sum ``bucket.flat`` over the ranks; ``total_weight`` blocks until the global weight of the step is known."""

    def reset(self) -> None:
        """Forget what earlier steps left, after a step that was not finite."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint of this rank must hold."""

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""


class _Stateless:
    def reset(self) -> None:
        return

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        return


class Uncompressed(_Stateless):
    """The plain sum."""

    def __init__(self, collective: Collective) -> None:
        self._collective = collective

    def reduce(self, bucket: Bucket, total_weight: Callable[[], float]) -> Iterator[None]:
        handle = self._collective.sum_async(bucket.flat, bucket.name)
        yield
        handle.wait()


class SixteenBit(_Stateless):
    """Values travel in 16 bits, sums are made in float32: half the bytes, no overflow.

    Rank r receives every rank's r-th chunk, adds them up and sends the sum to all: a ring's traffic at any world
    size. Chunks of float16 carry their own power of two, so a gradient of 1e6 neither overflows nor drowns small
    ones of other chunks. bfloat16 needs none. The payload is int16, which every collective can carry.

    Args:
        dtype: ``torch.float16`` or ``torch.bfloat16``.
    """

    def __init__(self, collective: Collective, dtype: torch.dtype) -> None:
        self._collective = collective
        self._dtype = dtype

    def reduce(self, bucket: Bucket, total_weight: Callable[[], float]) -> Iterator[None]:
        flat, ranks = bucket.flat, self._collective.world_size
        chunk = -(-flat.numel() // ranks)
        padded = flat.new_zeros(ranks * chunk, dtype=torch.float32)
        padded[: flat.numel()] = flat
        handle = self._collective.exchange_async(self._encode(padded.view(ranks, chunk)), f"{bucket.name} chunks")
        yield
        mine = self._decode(handle.wait()).sum(0, keepdim=True)
        handle = self._collective.gather_async(self._encode(mine), f"{bucket.name} sums")
        yield
        flat.copy_(self._decode(handle.wait()).view(-1)[: flat.numel()])

    def _encode(self, rows: Tensor) -> Tensor:
        """Rows of float32 as rows of int16: two for the row's scale, then the values."""
        scale = self._scale(rows)
        values = (rows * scale).to(self._dtype).view(torch.int16)
        return torch.cat([scale.view(torch.int16), values], dim=1)

    def _decode(self, payload: Tensor) -> Tensor:
        scale = payload[:, :2].contiguous().view(torch.float32)
        return payload[:, 2:].view(self._dtype).float() / scale

    def _scale(self, rows: Tensor) -> Tensor:
        """A power of two for each row that brings its largest value near the top of the range; NaN stays NaN."""
        if self._dtype == torch.bfloat16 or rows.numel() == 0:
            return rows.new_ones(len(rows), 1)
        largest = rows.abs().amax(dim=1, keepdim=True)
        exponent = torch.log2(_FP16_TARGET / largest).floor().clamp(-126, 126)
        return torch.where(largest > 0, torch.exp2(exponent), torch.ones_like(largest))


class PowerSGD:
    """Each gradient matrix travels as two thin factors; what they miss is added to the next step's gradient.

    One step of subspace iteration from the factors of the step before, with error feedback (Vogels, Karimireddy,
    Jaggi: PowerSGD, NeurIPS 2019, algorithms 1 and 2). Vectors, and matrices that the factors would not
    make smaller, travel as they are. Residuals are kept in units of the mean gradient, so that a short last
    batch does not magnify them.

    Args:
        rank: columns of a factor.
    """

    def __init__(self, collective: Collective, rank: int) -> None:
        self._collective = collective
        self._rank = rank
        self._residuals: dict[str, Tensor] = {}
        self._factors: dict[str, Tensor] = {}

    def reduce(self, bucket: Bucket, total_weight: Callable[[], float]) -> Iterator[None]:
        weight = total_weight()
        if not weight:  # rows that weigh nothing have no gradient, and take nothing of what earlier steps left
            yield from Uncompressed(self._collective).reduce(bucket, total_weight)
            return
        bucket.flat.div_(weight)
        matrices = {f"{bucket.name}.{i}": v.flatten(1) for i, v in enumerate(bucket.views) if self._pays(v)}
        others = [view for view in bucket.views if not self._pays(view)]
        for key, matrix in matrices.items():
            matrix.add_(self._residual(key, matrix))
        if not matrices:
            yield from Uncompressed(self._collective).reduce(bucket, total_weight)
            bucket.flat.mul_(weight)
            return
        left = [matrix @ self._factor(key, matrix) for key, matrix in matrices.items()]
        first = _Packed([*left, *others])
        handle = self._collective.sum_async(first.flat, f"{bucket.name} left")
        yield
        handle.wait()
        first.unpack()
        left = [torch.linalg.qr(factor).Q for factor in left]
        right = [matrix.T @ factor for matrix, factor in zip(matrices.values(), left, strict=True)]
        for (key, matrix), p, q in zip(matrices.items(), left, right, strict=True):
            self._residuals[key] = matrix - p @ q.T
        second = _Packed(right)
        handle = self._collective.sum_async(second.flat, f"{bucket.name} right")
        yield
        handle.wait()
        second.unpack()
        for (key, matrix), p, q in zip(matrices.items(), left, right, strict=True):
            torch.mm(p, q.T, out=matrix)
            self._factors[key] = q
        bucket.flat.mul_(weight)

    def reset(self) -> None:
        self._residuals.clear()
        self._factors.clear()

    def state(self) -> dict[str, Tensor]:
        residuals = {f"residual.{key}": value for key, value in self._residuals.items()}
        return residuals | {f"factor.{key}": value for key, value in self._factors.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        self.reset()
        for key, value in state.items():
            kind, _, name = key.partition(".")
            (self._residuals if kind == "residual" else self._factors)[name] = value

    def _pays(self, view: Tensor) -> bool:
        if view.ndim < 2:
            return False
        rows, columns = view.shape[0], view[0].numel()
        return rows * columns > 2 * self._rank * (rows + columns)

    def _residual(self, key: str, matrix: Tensor) -> Tensor:
        return self._residuals.get(key, torch.zeros((), dtype=matrix.dtype, device=matrix.device))

    def _factor(self, key: str, matrix: Tensor) -> Tensor:
        if key not in self._factors:
            generator = torch.Generator().manual_seed(len(key) + matrix.numel())
            noise = torch.randn(matrix.shape[1], self._rank, generator=generator, dtype=matrix.dtype)
            self._factors[key] = noise.to(matrix.device)
        return self._factors[key]


class _Packed:
    """Several tensors in one flat buffer, so that one collective carries them."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self.flat = torch.cat([tensor.reshape(-1) for tensor in tensors])

    def unpack(self) -> None:
        start = 0
        for tensor in self._tensors:
            tensor.copy_(self.flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()


def build_compression(name: CompressionName, collective: Collective, rank: int) -> Compression:
    """The reduction of that name; a process alone has nothing to compress."""
    if name == "none" or collective.world_size == 1:
        return Uncompressed(collective)
    if name == "powersgd":
        return PowerSGD(collective, rank)
    return SixteenBit(collective, torch.float16 if name == "fp16" else torch.bfloat16)
