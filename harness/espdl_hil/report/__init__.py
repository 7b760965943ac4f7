"""Results file, terminal table, HTML page and repro bundles. Knows verdicts, not devices."""

from espdl_hil.report.accuracy import Accuracy, worse_accuracy
from espdl_hil.report.check import Check, worse, worst
from espdl_hil.report.files import start_report, write_report
from espdl_hil.report.html import render_html
from espdl_hil.report.provenance import Commit, commit_of, environment
from espdl_hil.report.repro import Replay, Repro, read_repro, write_repro
from espdl_hil.report.results import Incident, Results
from espdl_hil.report.row import Details, Device, Latency, Row
from espdl_hil.report.schema import (
    CHECKS,
    EMULATED,
    METRIC,
    SILICON,
    SIMULATED,
    ResultsError,
    validate_results,
)
from espdl_hil.report.table import render_table

__all__ = [
    "CHECKS",
    "EMULATED",
    "METRIC",
    "SILICON",
    "SIMULATED",
    "Accuracy",
    "Check",
    "Commit",
    "Details",
    "Device",
    "Incident",
    "Latency",
    "Replay",
    "Repro",
    "Results",
    "ResultsError",
    "Row",
    "commit_of",
    "environment",
    "read_repro",
    "render_html",
    "render_table",
    "start_report",
    "validate_results",
    "worse",
    "worse_accuracy",
    "worst",
    "write_report",
    "write_repro",
]
