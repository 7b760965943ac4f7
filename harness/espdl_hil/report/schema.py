"""Checks what ``results.json`` says. Knows JSON values only, so that others can use it alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from espdl_hil.errors import HarnessError

SCHEMA = 1
SIMULATED = "simulated"
KINDS = (SIMULATED, "serial")
OUTCOMES = ("passed", "failed", "error")

_Check = Callable[[Any], bool]


class ResultsError(HarnessError):
    """Results that break their schema; names every fault at once."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_value(value: Any) -> bool:
    return _is_number(value) or value in ("nan", "inf", "-inf")


def _is_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, [*value, *value.values()]))


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _has(fields: Mapping[str, _Check]) -> _Check:
    return lambda value: isinstance(value, Mapping) and not _faults(value, fields, "")


def _faults(value: Any, fields: Mapping[str, _Check], where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{where}: not an object"]
    missing = [f"{where}: {name} is missing" for name in fields if name not in value]
    return missing + [
        f"{where}: {name} is {value[name]!r}"
        for name, check in fields.items()
        if name in value and not check(value[name])
    ]


_DEVICE: dict[str, _Check] = {
    "target": _is_text,
    "kind": KINDS.__contains__,
    "chip": _is_text,
    "revision": _is_count,
    "port": _is_text,
    "app_sha256": _is_text,
    "boot_nonce": _is_text,
}
_FIRST: dict[str, _Check] = {
    "chunk": _is_count,
    "frame": _is_count,
    "channel": _is_count,
    "expected": _is_value,
    "observed": _is_value,
}
_REFERENCE: dict[str, _Check] = {"differing": _is_count, "max_lsb": _or_null(_is_count)}
_LATENCY: dict[str, _Check] = {"median": _is_number, "p95": _is_number, "max": _is_number}
_DIAGNOSIS: dict[str, _Check] = {"cause": _is_text, "text": _is_text}
_ROW: dict[str, _Check] = {
    "id": _is_text,
    "target": _is_text,
    "model": _is_text,
    "bits": _is_count,
    "chunk_frames": _or_null(_is_count),
    "device_kind": KINDS.__contains__,
    "outcome": OUTCOMES.__contains__,
    "chunks": _is_count,
    "frames": _is_count,
    "elements": _is_count,
    "differing": _is_count,
    "max_lsb": _or_null(_is_count),
    "first": _or_null(_has(_FIRST)),
    "reference": _or_null(_has(_REFERENCE)),
    "sqnr_db": _or_null(_is_number),
    "cosine": _or_null(_is_number),
    "latency_us": _or_null(_has(_LATENCY)),
    "artifacts": _is_texts,
    "diagnosis": _or_null(_has(_DIAGNOSIS)),
}


def validate_results(results: Mapping[str, Any]) -> None:
    """Check an object against schema 1: types, and what one field says of another.

    Args:
        results: What ``json.load`` gives for a ``results.json``. Unknown fields are allowed.

    Raises:
        ResultsError: naming every fault.
    """
    schema = results.get("schema")
    if schema != SCHEMA:
        raise ResultsError(f"results: schema is {schema!r}, this reader knows {SCHEMA}")
    faults = [] if _is_texts(results.get("environment")) else ["environment: not a table of texts"]
    for name in ("devices", "rows"):
        if not isinstance(results.get(name), list):
            raise ResultsError(f"results: {name} is not a list")
    answered = set()
    for number, device in enumerate(results["devices"]):
        found = _faults(device, _DEVICE, f"devices[{number}]")
        faults += found
        if not found:
            answered.add((device["target"], device["kind"]))
    for number, row in enumerate(results["rows"]):
        where = f"rows[{number}]"
        found = _faults(row, _ROW, where)
        faults += found or [f"{where} ({row['id']}): {fault}" for fault in _nonsense(row, answered)]
    if faults:
        raise ResultsError("results break schema 1:\n  " + "\n  ".join(faults))


def _explained(row: Mapping[str, Any]) -> bool:
    """Whether a failed row says what failed: the stream, the reference, or another check."""
    reference = row["reference"] or {}
    error = row.get("details", {}).get("error")
    return bool(row["differing"] or reference.get("differing") or error)


def _nonsense(row: Mapping[str, Any], answered: set[tuple[str, str]]) -> list[str]:
    """What cannot be, although every field is of its type."""
    simulated = row["device_kind"] == SIMULATED
    device = (row["target"], row["device_kind"])
    checks = {
        "passed, but nothing was compared": row["outcome"] == "passed" and not row["elements"],
        "failed, but nothing differs": row["outcome"] == "failed" and not _explained(row),
        "more elements differ than were compared": row["differing"] > row["elements"],
        "differs, but first is null": row["differing"] > 0 and row["first"] is None,
        "first is given, but nothing differs": not row["differing"] and row["first"] is not None,
        "simulated, but has a latency": simulated and row["latency_us"] is not None,
        "no such device is listed": row["elements"] > 0 and device not in answered,
    }
    return [fault for fault, found in checks.items() if found]
