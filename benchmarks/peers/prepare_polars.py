"""The transformations of `benchmarks.prepare` in Polars; runs in an environment that has Polars alone."""

import os
import sys

os.environ["POLARS_MAX_THREADS"] = "2"
import polars as pl

source, target, numbers, texts = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4].split(",")

place = pl.col("id").hash(0) % 10
split = pl.when(place < 1).then(pl.lit("test")).when(place < 2).then(pl.lit("validation")).otherwise(pl.lit("train"))
table = pl.scan_parquet(f"{source}/*.parquet").with_columns(split.alias("split"))
train = table.filter(pl.col("split") == "train")
means = train.select(pl.col(name).mean() for name in numbers).collect().row(0, named=True)
filled = {name: pl.col(name).fill_null(means[name]) for name in numbers}
stds = train.select(filled[name].std(ddof=0) for name in numbers).collect().row(0, named=True)
for name in texts:
    counts = train.select(name).drop_nulls().group_by(name).len().sort(["len", name], descending=[True, False])
    ids = counts.with_row_index("i", offset=3).select(name, pl.col("i").cast(pl.Int32).alias(f"{name}_id")).collect()
    known = pl.col(f"{name}_id").fill_null(2)
    encoded = pl.when(pl.col(name).is_null()).then(1).otherwise(known).cast(pl.Int32).alias(f"{name}_id")
    table = table.join(ids.lazy(), on=name, how="left").with_columns(encoded)
columns = [((filled[name] - means[name]) / stds[name]).cast(pl.Float32).alias(name) for name in numbers]
moment = pl.col("t").dt
columns += [moment.month().alias("month"), moment.weekday().alias("weekday"), moment.hour().alias("hour"), pl.col("b")]
encoded_table = table.select("id", "label", "split", *(f"{name}_id" for name in texts), *columns)
os.makedirs(target)
for part in ("train", "validation", "test"):
    encoded_table.filter(pl.col("split") == part).sink_parquet(f"{target}/{part}.parquet")
