"""DRIVER, pyspark. Raw tables to a published dataset; the story is told in `pipeline.preparation.prepare`."""
