"""Checks what ``details.pictures`` of a row holds. Knows JSON values only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from espdl_hil.report.compact import is_packed

_Check = Callable[[Any], bool]


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_value(value: Any) -> bool:
    return _is_number(value) or value in ("nan", "inf", "-inf")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list_of(check: _Check, length: int | None = None) -> _Check:
    return lambda value: (
        isinstance(value, list) and length in (None, len(value)) and all(map(check, value))
    )


def _has(fields: Mapping[str, _Check]) -> _Check:
    return lambda value: (
        isinstance(value, Mapping)
        and all(name in value and check(value[name]) for name, check in fields.items())
    )


_PLACE: dict[str, _Check] = {
    **dict.fromkeys(("column", "frame", "channel"), _is_count),
    **dict.fromkeys(("expected", "observed"), _is_value),
}
_WAVE: dict[str, _Check] = {
    **dict.fromkeys(("channel", "other", "first_frame"), _is_count),
    **dict.fromkeys(("expected", "difference"), is_packed),
}
_COMPARISON: dict[str, _Check] = {
    "check": ("streaming", "interpreter", "reference").__contains__,
    "part": ("stream", "offline").__contains__,
    "output": _is_text,
    "against": ("offline", "interpreter", "reference").__contains__,
    "columns": ("chunk", "frame").__contains__,
    "unit": ("LSB", "").__contains__,
    **dict.fromkeys(
        ("frames", "chunk_frames", "skipped_frames", "warmup_frames", "differing", "elements"),
        _is_count,
    ),
    "broken": _list_of(_is_count),
    "first": _or_null(_has(_PLACE)),
    "worst": _or_null(_has({"column": _is_count, "channel": _is_count, "size": _is_number})),
    "heat": is_packed,
    "shape": _list_of(_is_count, 2),
    "bin": _list_of(_is_count, 2),
    "waves": _list_of(_has(_WAVE)),
    "histogram": _or_null(
        _has({"first": _is_number, "step": _is_number, "counts": _list_of(_is_count)})
    ),
}
_BUDGET: dict[str, _Check] = {
    "output": _is_text,
    "unit": ("LSB", "").__contains__,
    **dict.fromkeys(
        ("signal", "total", "quantization", "device", "streaming", "together"), _is_number
    ),
}
_LAYER: dict[str, _Check] = {
    **dict.fromkeys(("operator", "node", "tensor"), _is_text),
    "inputs": _list_of(_is_count),
    "frames": _or_null(_is_count),
    "keeps": _is_count,
    **dict.fromkeys(("changes_db", "clipped", "saturated"), _or_null(_is_number)),
    "output": lambda value: isinstance(value, bool),
}
_LATER: dict[str, _Check] = {  # reports from before it have none
    "module": _is_text,
    "made_up": lambda value: isinstance(value, bool),
}
_PICTURES: dict[str, _Check] = {
    "comparisons": _list_of(_has(_COMPARISON)),
    "budget": _list_of(_has(_BUDGET)),
    "layers": _list_of(
        lambda layer: (
            _has(_LAYER)(layer)
            and all(check(layer[name]) for name, check in _LATER.items() if name in layer)
        )
    ),
    "latency_us": _or_null(_list_of(_is_number)),
}


def picture_faults(details: Any, substrate: str) -> list[str]:
    """Name what is wrong with the pictures of a row.

    Args:
        details: The row's; pictures may be missing or empty.
        substrate: The row's; only silicon has chip time.
    """
    pictures = details.get("pictures") if isinstance(details, Mapping) else None
    if not pictures:
        return []
    if not isinstance(pictures, Mapping):
        return ["pictures is no object"]
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
