"""The transformations of `benchmarks.prepare` in DuckDB; runs in an environment that has DuckDB alone."""

import sys

import duckdb

source, target, numbers, texts = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4].split(",")
SPLIT = "CASE WHEN hash(id) % 10 < 1 THEN 'test' WHEN hash(id) % 10 < 2 THEN 'validation' ELSE 'train' END"

database = duckdb.connect()
database.execute("SET threads TO 2")
database.execute(f"CREATE VIEW t AS SELECT *, {SPLIT} AS split FROM '{source}/*.parquet'")
means = ", ".join(f"avg({name}) AS {name}_mean" for name in numbers)
database.execute(f"CREATE TABLE m AS SELECT {means} FROM t WHERE split = 'train'")
stds = ", ".join(f"stddev_pop(coalesce({name}, {name}_mean)) AS {name}_std" for name in numbers)
database.execute(f"CREATE TABLE s AS SELECT {stds} FROM t, m WHERE split = 'train'")
for name in texts:
    database.execute(
        f"CREATE TABLE v_{name} AS SELECT {name} AS k, "
        f"(2 + row_number() OVER (ORDER BY count(*) DESC, {name}))::INT AS i "
        f"FROM t WHERE split = 'train' AND {name} IS NOT NULL GROUP BY {name}"
    )
columns = [f"((coalesce({name}, {name}_mean) - {name}_mean) / {name}_std)::FLOAT AS {name}" for name in numbers]
columns += [f"CASE WHEN {name} IS NULL THEN 1 ELSE coalesce(v_{name}.i, 2) END::INT AS {name}" for name in texts]
columns += ["month(t) AS month", "isodow(t) AS weekday", "hour(t) AS hour", "b"]
joins = " ".join(f"LEFT JOIN v_{name} ON t.{name} = v_{name}.k" for name in texts)
database.execute(
    f"COPY (SELECT id, label, split, {', '.join(columns)} FROM t {joins}, m, s) "
    f"TO '{target}' (FORMAT parquet, PARTITION_BY (split))"
)
