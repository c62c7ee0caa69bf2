"""Writes the handwritten digits that scikit-learn ships into examples/digits/data, as a table with one image per row.

ANYWHERE. 1,797 images of 8 x 8 pixels with grey values 0 to 16, stretched here to 0 to 255 as bytes of images are, and
which digit each shows (UCI, 1998). No network.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TABLE = Path(__file__).resolve().parent / "data" / "digits.parquet"


def main() -> None:
    """Write the table if it is not there yet."""
    if TABLE.exists():
        return
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype("uint8").reshape(len(digits.target), -1)
    table = pa.table(
        {
            "number": pa.array(range(len(images)), pa.int64()),
            "pixels": pa.array([image.tobytes() for image in images], pa.binary()),
            "ink": pa.array(images.sum(axis=1, dtype="int64").tolist(), pa.int64()),
            "digit": pa.array(digits.target.tolist(), pa.int64()),
        }
    )
    TABLE.parent.mkdir(exist_ok=True)
    temporary = TABLE.with_suffix(".tmp")
    pq.write_table(table, temporary)
    temporary.replace(TABLE)


if __name__ == "__main__":
    main()
