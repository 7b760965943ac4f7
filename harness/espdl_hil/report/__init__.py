"""Results file, terminal table, HTML page and repro bundles. Knows verdicts, not devices."""

from espdl_hil.report.html import render_html
from espdl_hil.report.repro import Replay, Repro, read_repro, write_repro
from espdl_hil.report.results import Details, Device, Latency, Results, Row
from espdl_hil.report.schema import ResultsError, validate_results
from espdl_hil.report.table import render_table

__all__ = [
    "Details",
    "Device",
    "Latency",
    "Replay",
    "Repro",
    "Results",
    "ResultsError",
    "Row",
    "read_repro",
    "render_html",
    "render_table",
    "validate_results",
    "write_repro",
]
