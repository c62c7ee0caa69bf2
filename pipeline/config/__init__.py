"""ANYWHERE. One configuration for the whole flow; every section refuses what it does not understand.

`load_config` reads YAML, `parse_config` takes plain values from programs, `with_sections` lays such values over a
configuration. All validate everything at once.
"""

from __future__ import annotations

from pipeline.config.load import PipelineConfig, load_config, parse_config, with_sections

__all__ = ["PipelineConfig", "load_config", "parse_config", "with_sections"]
