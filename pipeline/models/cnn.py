"""RANK and ANYWHERE. A small convolutional network for image vectors, with tabular features beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.dataset import DatasetSchema
from pipeline.errors import ConfigError
from pipeline.models.linear import dense_inputs
from pipeline.models.outputs import output_width, shaped
from pipeline.models.tabular import perceptron


class Cnn(nn.Module):
    """Convolutions over each image, averaged over its places; all joined with the other features by a perceptron.

    An image is a vector feature of two or three dimensions: (height, width) or (channels, height, width). Bytes are
    scaled to [0, 1].

    Args:
        schema: of the dataset.
        channels: of the convolutions; each halves height and width.
        hidden: widths of the perceptron's layers.
        dropout: of the perceptron.
    """

    def __init__(
        self,
        schema: DatasetSchema,
        *,
        channels: Sequence[int] = (16, 32, 64),
        hidden: Sequence[int] = (64,),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        shapes = schema.vectors
        self.images = tuple(name for name, shape in shapes.items() if len(shape) in (2, 3))
        self.vectors = tuple(name for name in shapes if name not in self.images)
        if not self.images:
            raise ConfigError(
                f"model.name is cnn, but no feature is an image (found {dict(shapes) or 'no vectors'}); "
                "expected a vector of shape (height, width) or (channels, height, width); choose tabular"
            )
        self.towers = nn.ModuleList(_tower(shapes[name], channels) for name in self.images)
        self.embeddings = nn.ModuleList(nn.Embedding(ids, 8) for ids in schema.cardinalities.values())
        self.has_dense = bool(schema.numeric or self.vectors)
        inputs = len(self.images) * channels[-1] + len(self.embeddings) * 8 + len(schema.numeric)
        inputs += sum(schema.column(name).width for name in self.vectors)
        self.layers = perceptron(inputs, hidden, output_width(schema), dropout, "none", "relu")

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Inputs by name to one output per row, see the package."""
        dtype: torch.dtype = self.layers[-1].weight.dtype  # type: ignore[assignment]
        parts = [tower(_as_image(inputs[name], dtype)) for name, tower in zip(self.images, self.towers, strict=True)]
        if self.has_dense:
            parts.append(dense_inputs(inputs, self.vectors, dtype))
        parts += [table(inputs["categorical"][:, number]) for number, table in enumerate(self.embeddings)]
        return shaped(self.layers(torch.cat(parts, dim=1)))


def _as_image(values: Tensor, dtype: torch.dtype) -> Tensor:
    image = values.unsqueeze(1) if values.ndim == 3 else values
    return image.to(dtype) / 255 if values.dtype == torch.uint8 else image.to(dtype)


def _tower(shape: tuple[int, ...], channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = shape[0] if len(shape) == 3 else 1
    for width in channels:
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
