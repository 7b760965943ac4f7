"""Streaming: how a graph behaves in time, where caches go, and what is wrong with an export.

Import from here; the modules inside are free to move.
"""

from espdl_hil.streaming.analysis import Analysis, analyze
from espdl_hil.streaming.clock import Clock
from espdl_hil.streaming.findings import Finding, Rule, Severity, refuse, require_sound
from espdl_hil.streaming.graph import NeutralGraph, from_espdl
from espdl_hil.streaming.lint import check_export, has_caches, lint, lint_offline
from espdl_hil.streaming.plan import (
    Alignment,
    AttributeEdit,
    CacheSpec,
    ConstantEdit,
    Insertion,
    NewNode,
    StreamingPlan,
)
from espdl_hil.streaming.rules import RULES, finding_of
from espdl_hil.streaming.timing import Flow

__all__ = [
    "RULES",
    "Alignment",
    "Analysis",
    "AttributeEdit",
    "CacheSpec",
    "Clock",
    "ConstantEdit",
    "Finding",
    "Flow",
    "Insertion",
    "NeutralGraph",
    "NewNode",
    "Rule",
    "Severity",
    "StreamingPlan",
    "analyze",
    "check_export",
    "finding_of",
    "from_espdl",
    "has_caches",
    "lint",
    "lint_offline",
    "refuse",
    "require_sound",
]
