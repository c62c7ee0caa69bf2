"""DRIVER. The query of a preparation, found valid before anything is read: the same for the dry run and for the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.preparation.append import Base
from pipeline.preparation.clean import add_reasons, check_columns
from pipeline.preparation.inputs import Inputs, list_inputs
from pipeline.preparation.read import parsed, query_rows, source_frames
from pipeline.preparation.sensitive import check_sensitive_features, check_sensitive_names
from pipeline.preparation.session import OwnSettings, spark_errors


def listed_inputs(config: PipelineConfig, frame: DataFrame | None) -> Inputs:
    """The files of the inputs; what can be refused without Spark is.

    Args:
        config: names them.
        frame: an input from code.

    Raises:
        ConfigError: there is no input, or a feature would keep values of sensitive columns.
        InputMissingError: files are missing.
    """
    inputs = list_inputs(config)
    check_sensitive_features(config)
    if not config.source.inputs and frame is None:
        raise ConfigError("source.inputs is empty; expected at least one named input, or a DataFrame from code")
    return inputs


@dataclass(frozen=True)
class Query:
    """What a query gives; nothing of it has been computed.

    Attributes:
        frames: the inputs, with the rows that cannot be parsed; of the primary one the rows that count.
        primary: the name of the primary one.
        queried: the query's rows.
        reasoned: the same with the reasons to reject them, see `pipeline.preparation.clean.add_reasons`.
        marked: and, where rows are added to a version, with what that has of them, see `Base.marked`.
    """

    frames: Mapping[str, DataFrame]
    primary: str
    queried: DataFrame
    reasoned: DataFrame
    marked: DataFrame

    @classmethod
    def of(
        cls, own: OwnSettings, config: PipelineConfig, inputs: Inputs, base: Base | None, frame: DataFrame | None
    ) -> Query:
        """The query of a configuration.

        Args:
            own: the session.
            config: inputs, query and what is to be made of its columns.
            inputs: of `listed_inputs`.
            base: the version that rows are added to.
            frame: an input from code.

        Raises:
            ConfigError: the query reads more than inputs, or names in the configuration are of no column.
            DataError: the query is not valid, or columns are missing or of types that cannot be used.
            InputMissingError: inputs cannot be read as what they are said to be.
        """
        frames, primary = source_frames(own, config, inputs, frame)
        with own.sql():
            where = {primary: config.source.where}
            views = {name: parsed(one, where.get(name)) for name, one in frames.items()}
        with own.views(views):
            queried = query_rows(own, config, views, primary)
        check_columns(queried, config)
        check_sensitive_names(config, queried, views.values())
        with spark_errors("cleaning"):
            reasoned = add_reasons(queried, base.cleaning(config) if base else config)
            marked = base.marked(own.session, config, reasoned) if base else reasoned
        return cls(frames, primary, queried, reasoned, marked)
