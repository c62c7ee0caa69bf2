"""How many rows a file and a row group have: by the bytes of all columns, vectors and images too."""

from __future__ import annotations

from pipeline.config.features import NumericFeature, VectorFeature
from pipeline.layout import FILE_BYTES, GROUP_BYTES
from pipeline.preparation.layout import choose_layout, vector_bytes

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_files_and_row_groups_of_images_are_as_large_as_those_of_numbers() -> None:
    image = VectorFeature(type="vector", shape=[3, 224, 224])
    bytes_ = VectorFeature(type="vector", shape=[10], dtype="uint8")
    size = vector_bytes({"image": image, "bytes": bytes_, "n": NumericFeature(type="numeric")})
    assert size == 4 * 3 * 224 * 224 + 10
    rows = 1_000_000
    layout = choose_layout(rows, 40, FRACTIONS, None, size)
    assert layout.rows_per_row_group * size <= GROUP_BYTES
    assert 0.5 * FILE_BYTES < rows * 0.8 / layout.files["train"] * 2 * size <= FILE_BYTES


def test_staged_rows_come_in_whole_row_groups_some_together_where_they_are_small():
    def staged(group):
        layout = choose_layout(10**6, 40, FRACTIONS, group)
        return layout.rows_per_staged_group / layout.rows_per_row_group

    assert [staged(group) for group in (50, 20_000, 40_000, 100_000)] == [8, 6, 3, 1]
