"""Results file, terminal table, HTML page and repro bundles. Knows verdicts, not devices."""

from espdl_hil.report.accuracy import Accuracy, worse_accuracy
from espdl_hil.report.changes import Change, by_target, changes, describe
from espdl_hil.report.check import Check, worse, worst
from espdl_hil.report.compact import pack, unpack
from espdl_hil.report.files import LOGS, clear_logs, start_report, write_atomically, write_report
from espdl_hil.report.history import History, default_history
from espdl_hil.report.html import render_html
from espdl_hil.report.markdown import render_markdown
from espdl_hil.report.matrix import cause_of
from espdl_hil.report.metrics import render_metrics
from espdl_hil.report.node_data import write_node_data
from espdl_hil.report.pages import render_comparison, render_history
from espdl_hil.report.provenance import Commit, commit_of, environment
from espdl_hil.report.repro import Replay, Repro, read_repro, write_repro
from espdl_hil.report.results import Incident, Results, Written
from espdl_hil.report.row import Allowance, Details, Device, Latency, Resources, Row
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
from espdl_hil.report.trends import trends

__all__ = [
    "CHECKS",
    "EMULATED",
    "LOGS",
    "METRIC",
    "SILICON",
    "SIMULATED",
    "Accuracy",
    "Allowance",
    "Change",
    "Check",
    "Commit",
    "Details",
    "Device",
    "History",
    "Incident",
    "Latency",
    "Replay",
    "Repro",
    "Resources",
    "Results",
    "ResultsError",
    "Row",
    "Written",
    "by_target",
    "cause_of",
    "changes",
    "clear_logs",
    "commit_of",
    "default_history",
    "describe",
    "environment",
    "pack",
    "read_repro",
    "render_comparison",
    "render_history",
    "render_html",
    "render_markdown",
    "render_metrics",
    "render_table",
    "start_report",
    "trends",
    "unpack",
    "validate_results",
    "worse",
    "worse_accuracy",
    "worst",
    "write_atomically",
    "write_node_data",
    "write_report",
    "write_repro",
]
