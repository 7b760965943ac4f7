"""A run as OpenMetrics text, for whoever scrapes it. Knows results."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from espdl_hil.errors import printable
from espdl_hil.report.matrix import cause_of
from espdl_hil.report.schema import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

_HELP = {
    "outcome": "1 for the outcome that a row came to, 0 for the others.",
    "compared_elements": "Elements that a check compared.",
    "differing_elements": "Compared elements that are not the same.",
    "max_difference_lsb": "Largest difference of a check in quantization steps.",
    "sqnr_db": "Signal to quantization noise against the float model.",
    "task_metric": "What the model's own metric gives of a run.",
    "chunk_latency_seconds": "Time of a chunk on the chip; on silicon only.",
    "chip_bytes": "What a model takes of the chip; on silicon only.",
    "run_duration_seconds": "How long the run took.",
    "run_timestamp_seconds": "When the run began.",
}


def render_metrics(results: Results) -> str:
    """Render results in the text format of OpenMetrics, a gauge a figure.

    Args:
        results: What the run found.

    Returns:
        The text, ended by ``# EOF``.
    """
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    for row in results.rows:
        for name, labels, value in _of_row(row):
            samples[name].append(_sample(name, {**_labels(row), **labels}, value))
    began = datetime.fromisoformat(results.date).timestamp()
    samples["run_duration_seconds"].append(_sample("run_duration_seconds", {}, results.duration_s))
    samples["run_timestamp_seconds"].append(_sample("run_timestamp_seconds", {}, began))
    lines = []
    for name, found in samples.items():
        unit = next((u for u in ("seconds", "db", "lsb") if name.endswith(f"_{u}")), None)
        lines += [f"# TYPE espdl_hil_{name} gauge"]
        lines += [f"# UNIT espdl_hil_{name} {unit}"] if unit else []
        lines += [f"# HELP espdl_hil_{name} {_HELP[name]}", *found]
    return "\n".join([*lines, "# EOF"]) + "\n"


def _of_row(row: Row) -> Iterable[tuple[str, dict[str, str], float]]:
    for outcome in OUTCOMES:
        cause = {"cause": cause_of(row)} if outcome == row.outcome else {"cause": ""}
        yield "outcome", {"outcome": outcome, **cause}, int(outcome == row.outcome)
    for name, check in row.checks.items():
        yield "compared_elements", {"check": name}, check.compared
        yield "differing_elements", {"check": name}, check.differing
        if check.max_lsb is not None:
            yield "max_difference_lsb", {"check": name}, check.max_lsb
    if row.sqnr_db is not None:
        yield "sqnr_db", {}, row.sqnr_db
    for run, value in (row.metric or {}).items():
        yield "task_metric", {"run": run}, value
    if row.latency_us is not None:
        for name, value in vars(row.latency_us).items():
            yield "chunk_latency_seconds", {"statistic": name}, value / 1e6
    for name, value in vars(row.resources).items() if row.resources else ():
        if name.endswith("_bytes") and value is not None:
            yield "chip_bytes", {"of": name.removesuffix("_bytes")}, value


def _labels(row: Row) -> dict[str, str]:
    return {
        "id": row.id,
        "target": row.target,
        "model": row.model,
        "bits": str(row.bits),
        "chunk_frames": str(row.chunk_frames or ""),
        "substrate": row.substrate,
    }


def _sample(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"espdl_hil_{name}{{{pairs}}} {value:g}" if pairs else f"espdl_hil_{name} {value!r}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
