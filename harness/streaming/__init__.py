"""Streaming: how a graph behaves in time, where caches go, and what is wrong with an export.

Import from here; the modules inside are free to move.
"""

from harness.streaming.graph import NeutralGraph, from_espdl
from harness.streaming.plan import (
    Alignment,
    AttributeEdit,
    CacheSpec,
    ConstantEdit,
    Insertion,
    NewNode,
    StreamingPlan,
)
from harness.streaming.planner import plan_streaming
from harness.streaming.prefix import any_length

__all__ = [
    "Alignment",
    "AttributeEdit",
    "CacheSpec",
    "ConstantEdit",
    "Insertion",
    "NeutralGraph",
    "NewNode",
    "StreamingPlan",
    "any_length",
    "from_espdl",
    "plan_streaming",
]
