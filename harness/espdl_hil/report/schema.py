"""Checks ``results.json`` and manifests of bundles. Knows JSON values only: others can use it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from espdl_hil.errors import HarnessError, printable
from espdl_hil.report.forms import (
    Form,
    faults_of,
    has,
    is_count,
    is_flag,
    is_number,
    is_text,
    is_value,
    list_of,
    map_of,
    or_null,
    shown,
)
from espdl_hil.report.picture_schema import picture_faults
from espdl_hil.targets import TARGETS

SCHEMA = 2
SIMULATED, EMULATED, SILICON = "simulated", "emulated", "silicon"
SUBSTRATES = (SIMULATED, EMULATED, SILICON)
OUTCOMES = ("passed", "deviates", "failed", "error")  # from best to worst
CHECKS = ("streaming", "interpreter", "reference")  # in the order in which they are shown
METRIC = ("float", "offline", "streamed")  # whose outputs the model's own metric judges
ACCURACY = "accuracy"  # beside them; it measures, and compares no element

STREAMS = ("stimulus", "expected", "observed")  # what a bundle holds of a run
MAX_RANK = 8  # of a tensor
MAX_CHUNKS = 1 << 22  # of all rows and checks; a reader keeps a verdict of each


class ResultsError(HarnessError):
    """Results that break their schema; names every fault at once."""


def _is_utc(value: Any) -> bool:
    try:
        return is_text(value) and datetime.fromisoformat(value).utcoffset() == timedelta(0)
    except ValueError:
        return False


def _is_plain(value: Any) -> bool:
    """A text that a terminal shows as it is: no escape sequence, no change of direction."""
    return is_text(value) and printable(value) == value


_COMMIT: Form = {"id": is_text, "dirty": is_flag}
_DEVICE: Form = {
    "target": is_text,
    "substrate": SUBSTRATES.__contains__,
    "chip": is_text,
    "revision": is_count,
    **dict.fromkeys(("port", "app_sha256", "boot_nonce", "emulator"), is_text),
    **dict.fromkeys(("espdl_version", "idf_version"), is_text),
}
_INCIDENT: Form = {
    **dict.fromkeys(("target", "reason", "action", "outcome"), is_text),
    "seconds": is_number,
}
_WRITTEN: Form = {
    **dict.fromkeys(("target", "port"), is_text),
    **dict.fromkeys(("flashed_bytes", "uploaded_bytes"), is_count),
}
_FIRST: Form = {
    **dict.fromkeys(("chunk", "frame", "channel"), is_count),
    "output": is_text,
    **dict.fromkeys(("expected", "observed"), is_value),
}
_CHECK: Form = {
    "outcome": OUTCOMES.__contains__,
    **dict.fromkeys(("elements", "compared", "differing"), is_count),
    "max_lsb": or_null(is_count),
    "max_relative": or_null(is_value),
    "first": or_null(has(_FIRST)),
    **dict.fromkeys(("tolerance", "error"), is_text),
}
_ACCURACY: Form = {
    "outcome": OUTCOMES.__contains__,
    **dict.fromkeys(("sqnr_db", "changes_db", "min_sqnr_db"), is_number),
    "outputs": map_of(is_number),
    "error": is_text,
}
_LATENCY: Form = dict.fromkeys(("median", "p95", "p99", "max"), is_number)
_RESOURCES: Form = {
    **dict.fromkeys(("cpu_mhz", "model_bytes", "app_bytes"), is_count),
    **dict.fromkeys(("load_us", "internal_bytes", "psram_bytes"), or_null(is_count)),
    **dict.fromkeys(("internal_peak_bytes", "psram_peak_bytes"), or_null(is_count)),
    "stack_free_bytes": or_null(is_count),
}
_CHUNKS: Form = {  # neighbours that are alike
    **dict.fromkeys(("chunk", "chunks", "frames", "elements", "differing"), is_count),
    "max_lsb": or_null(is_count),
    "outcome": OUTCOMES.__contains__,
    "error": is_text,
}
_ALLOWANCE: Form = dict.fromkeys(("check", "kind", "where", "allowed", "used", "reason"), is_text)
_DETAILS: Form = {  # none is needed: a gate knows without them
    "error": is_text,
    "per_chunk": map_of(list_of(has(_CHUNKS))),
    **dict.fromkeys(
        ("alignment", "lane_warnings", "findings", "notes", "replay"), list_of(is_text)
    ),
    "tolerances": list_of(has(_ALLOWANCE)),
}
_DIAGNOSIS: Form = {"cause": is_text, "text": is_text}
_ROW: Form = {
    **dict.fromkeys(("id", "target", "model"), is_text),
    "bits": is_count,
    "chunk_frames": or_null(is_count),
    "substrate": SUBSTRATES.__contains__,
    **dict.fromkeys(("emulator", "board"), is_text),
    "real_time_factor": or_null(is_number),
    "outcome": OUTCOMES.__contains__,
    **dict.fromkeys(("chunks", "frames"), is_count),
    "checks": has(
        {**dict.fromkeys(CHECKS, or_null(has(_CHECK))), ACCURACY: or_null(has(_ACCURACY))}
    ),
    **dict.fromkeys(("sqnr_db", "cosine"), or_null(is_number)),
    **dict.fromkeys(("latency_us", "latency_cycles"), or_null(has(_LATENCY))),
    "resources": or_null(has(_RESOURCES)),
    **dict.fromkeys(("artifacts", "outputs"), map_of(is_text)),
    "diagnosis": or_null(has(_DIAGNOSIS)),
}
_RUN: Form = {
    "date": _is_utc,
    "duration_s": lambda value: is_number(value) and value >= 0,
    "command": is_text,
    "commit": or_null(has(_COMMIT)),
    "environment": map_of(is_text),
}
_LISTS = {"devices": _DEVICE, "incidents": _INCIDENT, "written": _WRITTEN, "rows": _ROW}

_TOLERANCE: Form = {
    "max_lsb": is_count,
    "relative": lambda value: is_number(value) and 0 <= value < 1,
}
_MANIFEST: Form = {
    **dict.fromkeys(("id", "model", "main"), _is_plain),
    "target": tuple(TARGETS).__contains__,
    "substrate": SUBSTRATES.__contains__,
    "frame_axes": map_of(or_null(lambda value: is_count(value) and value < MAX_RANK), _is_plain),
    "skip_frames": map_of(is_count, _is_plain),
    "silent_chunks": list_of(is_count),
    "state": map_of(_is_plain, _is_plain),
    "tolerance": has(_TOLERANCE),
    "versions": map_of(_is_plain, _is_plain),
    "diagnosis": or_null(has(dict.fromkeys(_DIAGNOSIS, _is_plain))),
    "tensors": has(dict.fromkeys(STREAMS, list_of(list_of(_is_plain)))),
    "files": map_of(_is_plain, _is_plain),
}


def validate_manifest(manifest: Any) -> None:
    """Check the manifest of a bundle, types only; unknown fields are allowed.

    Args:
        manifest: What ``json.loads`` gives for a ``manifest.json``.

    Raises:
        ResultsError: naming every fault.
    """
    schema = _schema_of(manifest)
    if schema != SCHEMA:
        raise ResultsError(f"manifest: schema {shown(schema)}, this reader knows {SCHEMA}")
    faults = faults_of(manifest, _MANIFEST, "manifest")
    if faults:
        raise ResultsError("; ".join(faults))


def validate_results(results: Mapping[str, Any]) -> None:
    """Check an object against schema 2: types, and what one field says of another.

    Args:
        results: What ``json.load`` gives for a ``results.json``. Unknown fields are allowed.

    Raises:
        ResultsError: naming every fault.
    """
    schema = _schema_of(results)
    if schema != SCHEMA:
        raise ResultsError(f"results: schema is {schema!r}, this reader knows {SCHEMA}")
    faults = faults_of(results, _RUN, "results")
    lists = {"written": [], **results}  # older files have none
    answered: set[tuple[str, str]] = set()
    for name, form in _LISTS.items():
        if not isinstance(lists.get(name), list):
            raise ResultsError(f"results: {name} is not a list")
        for number, entry in enumerate(lists[name]):
            where = f"{name}[{number}]"
            found = faults_of(entry, form, where)
            if name == "devices" and not found:
                answered.add((entry["target"], entry["substrate"]))
            elif name == "rows" and not found:
                odd = _nonsense(entry, answered)
                found = [f"{where} ({entry['id']}): {fault}" for fault in odd]
            faults += found
    if not faults and (claimed := sum(map(_claimed, results["rows"]))) > MAX_CHUNKS:
        faults.append(f"rows: their checks claim {claimed} chunks, {MAX_CHUNKS} at most are read")
    if faults:
        raise ResultsError(f"results break schema {SCHEMA}:\n  " + "\n  ".join(faults))


def _schema_of(data: Any) -> Any:
    return data.get("schema") if isinstance(data, Mapping) else None


def _claimed(row: Mapping[str, Any]) -> int:
    """Chunks of a row, whose details are of their form, over its checks."""
    checks = row.get("details", {}).get("per_chunk", {}).values()
    return sum(run["chunks"] for runs in checks for run in runs)


def _nonsense(row: Mapping[str, Any], answered: set[tuple[str, str]]) -> list[str]:
    """What cannot be, although every field is of its type."""
    substrate, details = row["substrate"], row.get("details", {})
    if not isinstance(details, Mapping):
        return ["details: not an object"]
    made = {name: check for name in CHECKS if (check := row["checks"][name]) is not None}
    accuracy = row["checks"][ACCURACY]
    measured = [accuracy] if accuracy is not None else []
    compared = bool(measured) or any(check["compared"] for check in made.values())
    outcomes = [check["outcome"] for check in (*made.values(), *measured)]
    worst = max(map(OUTCOMES.index, outcomes), default=0)
    known = row["outcome"] == "deviates" and substrate == EMULATED and row["diagnosis"]
    explained = worst or details.get("error")
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
    present = {name: check for name, check in _DETAILS.items() if name in details}
    of_details = faults_of(details, present, "details") + picture_faults(details, substrate)
    return [fault for fault, found in faults.items() if found] + of_checks + of_details


def _odd_accuracy(accuracy: Mapping[str, Any]) -> list[str]:
    """What cannot be said of a measurement."""
    outcome, lacking = accuracy["outcome"], accuracy["sqnr_db"] < accuracy["min_sqnr_db"]
    metric = accuracy.get("metric")
    faults = {
        "passed, but less is kept than is asked for": outcome == "passed" and lacking,
        "failed, but no error is given": outcome == "failed" and not accuracy["error"],
        "metric is not three numbers": metric is not None  # older reports have none
        and not (map_of(is_number)(metric) and set(metric) == set(METRIC)),
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
