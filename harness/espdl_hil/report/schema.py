"""Checks what ``results.json`` says. Knows JSON values only, so that others can use it alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from espdl_hil.errors import HarnessError

SCHEMA = 2
SIMULATED, EMULATED, SILICON = "simulated", "emulated", "silicon"
SUBSTRATES = (SIMULATED, EMULATED, SILICON)
OUTCOMES = ("passed", "deviates", "failed", "error")  # from best to worst
CHECKS = ("streaming", "interpreter", "reference")  # in the order in which they are shown

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


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_utc(value: Any) -> bool:
    try:
        return _is_text(value) and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False


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


_COMMIT: dict[str, _Check] = {"id": _is_text, "dirty": _is_flag}
_DEVICE: dict[str, _Check] = {
    "target": _is_text,
    "substrate": SUBSTRATES.__contains__,
    "chip": _is_text,
    "revision": _is_count,
    "port": _is_text,
    "app_sha256": _is_text,
    "boot_nonce": _is_text,
    "emulator": _is_text,
}
_INCIDENT: dict[str, _Check] = {
    "target": _is_text,
    "reason": _is_text,
    "action": _is_text,
    "outcome": _is_text,
    "seconds": _is_number,
}
_FIRST: dict[str, _Check] = {
    "chunk": _is_count,
    "frame": _is_count,
    "channel": _is_count,
    "output": _is_text,
    "expected": _is_value,
    "observed": _is_value,
}
_CHECK: dict[str, _Check] = {
    "outcome": OUTCOMES.__contains__,
    "elements": _is_count,
    "compared": _is_count,
    "differing": _is_count,
    "max_lsb": _or_null(_is_count),
    "max_relative": _or_null(_is_value),
    "first": _or_null(_has(_FIRST)),
    "tolerance": _is_text,
    "error": _is_text,
}
_LATENCY: dict[str, _Check] = {"median": _is_number, "p95": _is_number, "max": _is_number}
_DIAGNOSIS: dict[str, _Check] = {"cause": _is_text, "text": _is_text}
_ROW: dict[str, _Check] = {
    "id": _is_text,
    "target": _is_text,
    "model": _is_text,
    "bits": _is_count,
    "chunk_frames": _or_null(_is_count),
    "substrate": SUBSTRATES.__contains__,
    "emulator": _is_text,
    "outcome": OUTCOMES.__contains__,
    "chunks": _is_count,
    "frames": _is_count,
    "checks": _has(dict.fromkeys(CHECKS, _or_null(_has(_CHECK)))),
    "sqnr_db": _or_null(_is_number),
    "cosine": _or_null(_is_number),
    "latency_us": _or_null(_has(_LATENCY)),
    "artifacts": _is_texts,
    "diagnosis": _or_null(_has(_DIAGNOSIS)),
}
_RUN: dict[str, _Check] = {
    "date": _is_utc,
    "duration_s": lambda value: _is_number(value) and value >= 0,
    "command": _is_text,
    "commit": _or_null(_has(_COMMIT)),
    "environment": _is_texts,
}


def validate_results(results: Mapping[str, Any]) -> None:
    """Check an object against schema 2: types, and what one field says of another.

    Args:
        results: What ``json.load`` gives for a ``results.json``. Unknown fields are allowed.

    Raises:
        ResultsError: naming every fault.
    """
    schema = results.get("schema")
    if schema != SCHEMA:
        raise ResultsError(f"results: schema is {schema!r}, this reader knows {SCHEMA}")
    faults = _faults(results, _RUN, "results")
    for name in ("devices", "incidents", "rows"):
        if not isinstance(results.get(name), list):
            raise ResultsError(f"results: {name} is not a list")
    answered = set()
    for number, device in enumerate(results["devices"]):
        found = _faults(device, _DEVICE, f"devices[{number}]")
        faults += found
        if not found:
            answered.add((device["target"], device["substrate"]))
    for number, incident in enumerate(results["incidents"]):
        faults += _faults(incident, _INCIDENT, f"incidents[{number}]")
    for number, row in enumerate(results["rows"]):
        where = f"rows[{number}]"
        found = _faults(row, _ROW, where)
        faults += found or [f"{where} ({row['id']}): {fault}" for fault in _nonsense(row, answered)]
    if faults:
        raise ResultsError(f"results break schema {SCHEMA}:\n  " + "\n  ".join(faults))


def _nonsense(row: Mapping[str, Any], answered: set[tuple[str, str]]) -> list[str]:
    """What cannot be, although every field is of its type."""
    substrate = row["substrate"]
    made = {name: check for name in CHECKS if (check := row["checks"][name]) is not None}
    compared = any(check["compared"] for check in made.values())
    worst = max((OUTCOMES.index(check["outcome"]) for check in made.values()), default=0)
    known = row["outcome"] == "deviates" and substrate == EMULATED and row["diagnosis"]
    explained = worst or row.get("details", {}).get("error")
    faults = {
        "passed, but nothing was compared": row["outcome"] == "passed" and not compared,
        "better than its worst check": OUTCOMES.index(row["outcome"]) < worst and not known,
        f"{row['outcome']}, but nothing says why": row["outcome"] != "passed" and not explained,
        f"{substrate}, but has a latency": substrate != SILICON and row["latency_us"] is not None,
        f"{substrate}, but names an emulator": substrate != EMULATED and row["emulator"],
        "no such device is listed": compared and (row["target"], row["substrate"]) not in answered,
    }
    of_checks = [f"{name}: {fault}" for name, check in made.items() for fault in _odd(check)]
    return [fault for fault, found in faults.items() if found] + of_checks


def _odd(check: Mapping[str, Any]) -> list[str]:
    """What cannot be said of one comparison."""
    outcome, differing = check["outcome"], check["differing"]
    faults = {
        "passed, but nothing was compared": outcome == "passed" and not check["compared"],
        "failed, but nothing differs": outcome == "failed" and not (differing or check["error"]),
        "error, but no error is given": outcome == "error" and not check["error"],
        "more was compared than was expected": check["compared"] > check["elements"],
        "more elements differ than were compared": differing > check["compared"],
        "differs, but first is null": differing > 0 and check["first"] is None,
        "first is given, but nothing differs": not differing and check["first"] is not None,
    }
    return [fault for fault, found in faults.items() if found]
