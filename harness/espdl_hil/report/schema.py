"""Checks ``results.json`` and manifests of bundles. Knows JSON values only: others can use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from espdl_hil.errors import HarnessError, printable
from espdl_hil.report.picture_schema import picture_faults
from espdl_hil.targets import TARGETS

SCHEMA = 2
SIMULATED, EMULATED, SILICON = "simulated", "emulated", "silicon"
SUBSTRATES = (SIMULATED, EMULATED, SILICON)
OUTCOMES = ("passed", "deviates", "failed", "error")  # from best to worst
CHECKS = ("streaming", "interpreter", "reference")  # in the order in which they are shown
METRIC = ("float", "offline", "streamed")  # whose outputs the model's own metric judges
ACCURACY = "accuracy"  # beside them; it measures, and compares no element

_Check = Callable[[Any], bool]


STREAMS = ("stimulus", "expected", "observed")  # what a bundle holds of a run
MAX_RANK = 8  # of a tensor
MAX_SHOWN = 80  # characters of a wrong value


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


def _is_plain(value: Any) -> bool:
    """A text that a terminal shows as it is: no escape sequence, no change of direction."""
    return _is_text(value) and printable(value) == value


def _or_null(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _has(fields: Mapping[str, _Check]) -> _Check:
    return lambda value: isinstance(value, Mapping) and not _faults(value, fields, "")


def _faults(value: Any, fields: Mapping[str, _Check], where: str) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{where}: not an object"]
    missing = [f"{where}: {name} is missing" for name in fields if name not in value]
    return missing + [
        f"{where}: {name} is {_shown(value[name])}"
        for name, check in fields.items()
        if name in value and not check(value[name])
    ]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _is_map(check: _Check) -> _Check:
    """An object of plain names whose values pass."""
    return lambda value: (
        isinstance(value, Mapping)
        and all(map(_is_plain, value))
        and all(map(check, value.values()))
    )


def _is_list(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


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
    "espdl_version": _is_text,
    "idf_version": _is_text,
}
_INCIDENT: dict[str, _Check] = {
    "target": _is_text,
    "reason": _is_text,
    "action": _is_text,
    "outcome": _is_text,
    "seconds": _is_number,
}
_WRITTEN: dict[str, _Check] = {
    "target": _is_text,
    "port": _is_text,
    "flashed_bytes": _is_count,
    "uploaded_bytes": _is_count,
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
_ACCURACY: dict[str, _Check] = {
    "outcome": OUTCOMES.__contains__,
    "sqnr_db": _is_number,
    "changes_db": _is_number,
    "min_sqnr_db": _is_number,
    "outputs": lambda value: isinstance(value, Mapping) and all(map(_is_number, value.values())),
    "error": _is_text,
}
_LATENCY: dict[str, _Check] = dict.fromkeys(("median", "p95", "p99", "max"), _is_number)
_RESOURCES: dict[str, _Check] = {
    **dict.fromkeys(("cpu_mhz", "model_bytes", "app_bytes"), _is_count),
    **dict.fromkeys(
        ("load_us", "internal_bytes", "psram_bytes", "internal_peak_bytes", "psram_peak_bytes"),
        _or_null(_is_count),
    ),
    "stack_free_bytes": _or_null(_is_count),
}
_DIAGNOSIS: dict[str, _Check] = {"cause": _is_text, "text": _is_text}
_ROW: dict[str, _Check] = {
    "id": _is_text,
    "target": _is_text,
    "model": _is_text,
    "bits": _is_count,
    "chunk_frames": _or_null(_is_count),
    "substrate": SUBSTRATES.__contains__,
    "emulator": _is_text,
    "board": _is_text,
    "real_time_factor": _or_null(_is_number),
    "outcome": OUTCOMES.__contains__,
    "chunks": _is_count,
    "frames": _is_count,
    "checks": _has(
        {**dict.fromkeys(CHECKS, _or_null(_has(_CHECK))), ACCURACY: _or_null(_has(_ACCURACY))}
    ),
    "sqnr_db": _or_null(_is_number),
    "cosine": _or_null(_is_number),
    "latency_us": _or_null(_has(_LATENCY)),
    "latency_cycles": _or_null(_has(_LATENCY)),
    "resources": _or_null(_has(_RESOURCES)),
    "artifacts": _is_texts,
    "outputs": _is_texts,
    "diagnosis": _or_null(_has(_DIAGNOSIS)),
}
_RUN: dict[str, _Check] = {
    "date": _is_utc,
    "duration_s": lambda value: _is_number(value) and value >= 0,
    "command": _is_text,
    "commit": _or_null(_has(_COMMIT)),
    "environment": _is_texts,
}

_TOLERANCE: dict[str, _Check] = {
    "max_lsb": _is_count,
    "relative": lambda value: _is_number(value) and 0 <= value < 1,
}
_MANIFEST: dict[str, _Check] = {
    **dict.fromkeys(("id", "model", "main"), _is_plain),
    "target": tuple(TARGETS).__contains__,
    "substrate": SUBSTRATES.__contains__,
    "frame_axes": _is_map(_or_null(lambda value: _is_count(value) and value < MAX_RANK)),
    "skip_frames": _is_map(_is_count),
    "silent_chunks": _is_list(_is_count),
    "state": _is_map(_is_plain),
    "tolerance": _has(_TOLERANCE),
    "versions": _is_map(_is_plain),
    "diagnosis": _or_null(_has(dict.fromkeys(_DIAGNOSIS, _is_plain))),
    "tensors": _has(dict.fromkeys(STREAMS, _is_list(_is_list(_is_plain)))),
    "files": _is_map(_is_plain),
}


def validate_manifest(manifest: Any) -> None:
    """Check the manifest of a bundle, types only; unknown fields are allowed.

    Args:
        manifest: What ``json.loads`` gives for a ``manifest.json``.

    Raises:
        ResultsError: naming every fault.
    """
    schema = manifest.get("schema") if isinstance(manifest, Mapping) else None
    if schema != SCHEMA:
        raise ResultsError(f"manifest: schema {_shown(schema)}, this reader knows {SCHEMA}")
    faults = _faults(manifest, _MANIFEST, "manifest")
    if faults:
        raise ResultsError("; ".join(faults))


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
    for number, written in enumerate(results.get("written", ())):  # older files have none
        faults += _faults(written, _WRITTEN, f"written[{number}]")
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
    accuracy = row["checks"][ACCURACY]
    measured = [accuracy] if accuracy is not None else []
    compared = bool(measured) or any(check["compared"] for check in made.values())
    outcomes = [check["outcome"] for check in (*made.values(), *measured)]
    worst = max(map(OUTCOMES.index, outcomes), default=0)
    known = row["outcome"] == "deviates" and substrate == EMULATED and row["diagnosis"]
    explained = worst or row.get("details", {}).get("error")
    faults = {
        "passed, but nothing was compared": row["outcome"] == "passed" and not compared,
        "better than its worst check": OUTCOMES.index(row["outcome"]) < worst and not known,
        f"{row['outcome']}, but nothing says why": row["outcome"] != "passed" and not explained,
        f"{substrate}, but has a latency": substrate != SILICON and row["latency_us"] is not None,
        f"{substrate}, but takes of a chip": substrate != SILICON and row["resources"] is not None,
        "keeps a real time without a latency": row["real_time_factor"] and not row["latency_us"],
        f"{substrate}, but names an emulator": substrate != EMULATED and row["emulator"],
        "quantization is no object": not isinstance(row.get("quantization") or {}, Mapping),
        "no such device is listed": compared and (row["target"], row["substrate"]) not in answered,
    }
    of_checks = [f"{name}: {fault}" for name, check in made.items() for fault in _odd(check)]
    of_checks += [f"{ACCURACY}: {fault}" for found in measured for fault in _odd_accuracy(found)]
    drawn = picture_faults(row.get("details"), substrate)
    return [fault for fault, found in faults.items() if found] + of_checks + drawn


def _is_metric(value: Any) -> bool:
    """None, or what the metric gives for each run; reports from before it have none."""
    return value is None or (
        isinstance(value, Mapping)
        and set(value) == set(METRIC)
        and all(map(_is_number, value.values()))
    )


def _odd_accuracy(accuracy: Mapping[str, Any]) -> list[str]:
    """What cannot be said of a measurement."""
    outcome, lacking = accuracy["outcome"], accuracy["sqnr_db"] < accuracy["min_sqnr_db"]
    faults = {
        "passed, but less is kept than is asked for": outcome == "passed" and lacking,
        "failed, but no error is given": outcome == "failed" and not accuracy["error"],
        "metric is not three numbers": not _is_metric(accuracy.get("metric")),
        "sqnr_db is no output's": accuracy["sqnr_db"] not in accuracy["outputs"].values(),
    }
    return [fault for fault, found in faults.items() if found]


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
