"""Streaming: how a graph behaves in time, where caches go, and what is wrong with an export.

Import from here; the modules inside are free to move.
"""

from espdl_hil.streaming.graph import NeutralGraph, from_espdl
from espdl_hil.streaming.lint import lint, lint_offline
from espdl_hil.streaming.plan import (
    Alignment,
    AttributeEdit,
    CacheSpec,
    ConstantEdit,
    Insertion,
    NewNode,
    StreamingPlan,
)
from espdl_hil.streaming.planner import plan_streaming
from espdl_hil.streaming.rules import RULES, Finding, Rule, Severity

__all__ = [
    "RULES",
    "Alignment",
    "AttributeEdit",
    "CacheSpec",
    "ConstantEdit",
    "Finding",
    "Insertion",
    "NeutralGraph",
    "NewNode",
    "Rule",
    "Severity",
    "StreamingPlan",
    "from_espdl",
    "lint",
    "lint_offline",
    "plan_streaming",
]
