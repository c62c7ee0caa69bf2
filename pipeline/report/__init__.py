"""DRIVER. A run as one HTML page that needs nothing else: no network, no scripts, no fonts; light and dark."""

from __future__ import annotations

from pipeline.report.comparison import render_table
from pipeline.report.page import render_report

__all__ = ["render_report", "render_table"]
