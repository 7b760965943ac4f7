"""Checks what ``details.pictures`` of a row holds. Knows JSON values only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from espdl_hil.report.compact import is_packed
from espdl_hil.report.forms import (
    Form,
    has,
    is_count,
    is_flag,
    is_number,
    is_text,
    is_value,
    list_of,
    or_null,
)

_PLACE: Form = {
    **dict.fromkeys(("column", "frame", "channel"), is_count),
    **dict.fromkeys(("expected", "observed"), is_value),
}
_WAVE: Form = {
    **dict.fromkeys(("channel", "other", "first_frame"), is_count),
    **dict.fromkeys(("expected", "difference"), is_packed),
}
_COMPARISON: Form = {
    "check": ("streaming", "interpreter", "reference").__contains__,
    "part": ("stream", "offline").__contains__,
    "output": is_text,
    "against": ("offline", "interpreter", "reference").__contains__,
    "columns": ("chunk", "frame").__contains__,
    "unit": ("LSB", "").__contains__,
    **dict.fromkeys(
        ("frames", "chunk_frames", "skipped_frames", "warmup_frames", "differing", "elements"),
        is_count,
    ),
    "broken": list_of(is_count),
    "first": or_null(has(_PLACE)),
    "worst": or_null(has({"column": is_count, "channel": is_count, "size": is_number})),
    "heat": is_packed,
    "shape": list_of(is_count, 2),
    "bin": list_of(is_count, 2),
    "waves": list_of(has(_WAVE)),
    "histogram": or_null(has({"first": is_number, "step": is_number, "counts": list_of(is_count)})),
}
_BUDGET: Form = {
    "output": is_text,
    "unit": ("LSB", "").__contains__,
    **dict.fromkeys(
        ("signal", "total", "quantization", "device", "streaming", "together"), is_number
    ),
}
_LAYER: Form = {
    **dict.fromkeys(("operator", "node", "tensor"), is_text),
    "inputs": list_of(is_count),
    "frames": or_null(is_count),
    "keeps": is_count,
    **dict.fromkeys(("changes_db", "clipped", "saturated"), or_null(is_number)),
    "output": is_flag,
}
_LATER: Form = {  # reports from before it have none
    "module": is_text,
    "made_up": is_flag,
}
_PICTURES: Form = {
    "comparisons": list_of(has(_COMPARISON)),
    "budget": list_of(has(_BUDGET)),
    "layers": list_of(
        lambda layer: (
            has(_LAYER)(layer)
            and all(check(layer[name]) for name, check in _LATER.items() if name in layer)
        )
    ),
    "latency_us": or_null(list_of(is_number)),
}


def picture_faults(details: Mapping[str, Any], substrate: str) -> list[str]:
    """Name what is wrong with the pictures of a row.

    Args:
        details: The row's; pictures may be missing or empty.
        substrate: The row's; only silicon has chip time.
    """
    pictures = details.get("pictures", {})
    if not isinstance(pictures, Mapping):
        return ["pictures is no object"]
    if not pictures:
        return []
    wrong = [
        f"pictures: {name} breaks its form"
        for name, check in _PICTURES.items()
        if name not in pictures or not check(pictures[name])
    ]
    if not wrong and pictures["latency_us"] and substrate != "silicon":
        wrong.append(f"pictures: {substrate}, but has latencies")
    if not wrong and (parts := _unbalanced(pictures["budget"])):
        wrong.append(f"pictures: the error budget of {', '.join(parts)} does not add up")
    return wrong


def _unbalanced(budget: list[Mapping[str, Any]]) -> list[str]:
    keys = ("quantization", "device", "streaming", "together")
    return [
        entry["output"]
        for entry in budget
        if not math.isclose(
            sum(entry[key] for key in keys), entry["total"], rel_tol=1e-6, abs_tol=1e-9
        )
    ]
