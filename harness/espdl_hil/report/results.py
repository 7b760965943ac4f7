"""The results of a run, and the file that keeps them. ``docs/results.md`` is the schema."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.report.html import render_html
from espdl_hil.report.schema import SCHEMA, SIMULATED, validate_results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.compare import (
        ChunkVerdict,
        Difference,
        Fidelity,
        FirstDifference,
        Outcome,
        StreamVerdict,
    )

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Device:
    """A devkit that rows were measured on.

    Attributes:
        target: ``esp32s3`` or ``esp32p4``.
        kind: ``simulated`` or ``serial``.
        chip: The name that the chip gives itself.
        revision: Chip revision, major * 100 + minor.
        port: The port as the user would name it.
        app_sha256: Hash of the app, as the device reports it.
        boot_nonce: Drawn at boot: another value is another boot.
    """

    target: str
    kind: str
    chip: str
    revision: int
    port: str
    app_sha256: str
    boot_nonce: str


@dataclass(frozen=True)
class Latency:
    """Time of a chunk on the chip, over the chunks of a stream, in microseconds."""

    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, samples_us: Sequence[float]) -> Latency:
        """Summarize one sample a chunk; at least one.

        >>> Latency.of([10, 11, 30])
        Latency(median=11.0, p95=28.1, max=30.0)
        """
        median, p95 = (round(float(np.percentile(samples_us, q)), 3) for q in (50, 95))
        return cls(median, p95, float(max(samples_us)))


@dataclass(frozen=True)
class Details:
    """What a reader wants to see of a row and a gate does not need.

    Attributes:
        error: Why the row did not pass, if not for the elements that differ.
        alignment: What each chunk was compared with, a line per output.
        per_chunk: The verdict of each chunk.
        lane_warnings: Nodes whose sums a stimulus could drive out of the S3's 20-bit lanes.
        notes: Anything else, a sentence each.
        replay: Command that replays the row's repro bundle; empty without one.
    """

    error: str = ""
    alignment: tuple[str, ...] = ()
    per_chunk: tuple[ChunkVerdict, ...] = ()
    lane_warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    replay: str = ""


@dataclass(frozen=True)
class Row:
    """One model on one target at one width and chunk size.

    Attributes:
        id: The test id, ``esp32s3-tcn-int8-chunk3``.
        target: ``esp32s3`` or ``esp32p4``.
        model: The model's name.
        bits: Quantization width.
        chunk_frames: Input frames a chunk; None for a model run whole.
        device_kind: ``simulated`` or ``serial``.
        outcome: ``failed`` is about numbers, ``error`` about getting them.
        chunks: Chunks compared.
        frames: Output frames compared.
        elements: Elements compared.
        differing: Elements that are not the same.
        max_lsb: Largest difference in steps; None if only float outputs were compared.
        first: The first difference; None without any.
        reference: Differing elements and largest difference against esp-ppq; None if not asked.
        sqnr_db: Signal to quantization noise against the float model; None if undefined.
        cosine: Cosine against the float model; None if undefined.
        latency_us: None on a simulated device, which measures no chip time.
        artifacts: File name to sha256.
        diagnosis: What ``Diagnosis.to_json`` gives; None if there was nothing to diagnose.
        details: What the HTML report shows besides.
    """

    id: str
    target: str
    model: str
    bits: int
    chunk_frames: int | None
    device_kind: str
    outcome: Outcome
    chunks: int = 0
    frames: int = 0
    elements: int = 0
    differing: int = 0
    max_lsb: int | None = 0
    first: FirstDifference | None = None
    reference: Difference | StreamVerdict | None = None
    sqnr_db: float | None = None
    cosine: float | None = None
    latency_us: Latency | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None
    details: Details = Details()

    def __post_init__(self) -> None:
        if self.device_kind == SIMULATED and self.latency_us is not None:
            raise ValueError(f"row {self.id}: a simulated device measures no chip time")

    @classmethod
    def of_verdict(
        cls, verdict: StreamVerdict, *, fidelity: Fidelity | None = None, **fields: Any
    ) -> Row:
        """Fill a row from a verdict.

        Args:
            verdict: Gives the outcome, the counts and the first difference.
            fidelity: Against the float model.
            **fields: The row's other fields; ``details`` is completed with the chunks and errors.
        """
        details: Details = fields.pop("details", Details())
        error = details.error or "; ".join(verdict.errors)
        return cls(
            outcome=verdict.outcome,
            chunks=len(verdict.chunks),
            frames=verdict.frames,
            elements=verdict.elements,
            differing=verdict.differing,
            max_lsb=verdict.max_lsb,
            first=verdict.first,
            sqnr_db=fidelity.sqnr_db if fidelity else None,
            cosine=fidelity.cosine if fidelity else None,
            details=replace(details, per_chunk=verdict.chunks, error=error),
            **fields,
        )

    def to_json(self) -> JsonObject:
        """The row as ``results.json`` keeps it."""
        reference = self.reference
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "outcome": str(self.outcome),
            "first": None if self.first is None else first_to_json(self.first),
            "reference": reference
            and {"differing": reference.differing, "max_lsb": reference.max_lsb},
            "latency_us": None if self.latency_us is None else asdict(self.latency_us),
            "artifacts": dict(self.artifacts),
            "diagnosis": None if self.diagnosis is None else dict(self.diagnosis),
            "details": asdict(self.details),
        }


_PLAIN = (
    *("id", "target", "model", "bits", "chunk_frames", "device_kind"),
    *("chunks", "frames", "elements", "differing", "max_lsb", "sqnr_db", "cosine"),
)


def first_to_json(first: FirstDifference) -> JsonObject:
    """The five fields that the schema names; NaN and infinities become strings."""
    values = {name: getattr(first, name) for name in ("chunk", "frame", "channel")}
    for name in ("expected", "observed"):
        value = getattr(first, name)
        values[name] = value if np.isfinite(value) else str(value)
    return values


@dataclass
class Results:
    """All that a run found.

    Attributes:
        environment: Component to version, for the record.
        devices: Devices that answered, in order of appearance.
        rows: Verdicts, in the order they were reached.
    """

    environment: dict[str, str] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def add_device(self, device: Device) -> None:
        """Note a device; the same boot of the same device is noted once."""
        if device not in self.devices:
            self.devices.append(device)

    def add_row(self, row: Row) -> None:
        """Note a row; a test that is run again is noted again."""
        self.rows.append(row)

    def to_json(self) -> JsonObject:
        """The object that ``results.json`` holds, schema 1."""
        return {
            "schema": SCHEMA,
            "environment": dict(self.environment),
            "devices": [asdict(device) for device in self.devices],
            "rows": [row.to_json() for row in self.rows],
        }

    def write(self, directory: Path) -> Path:
        """Write ``results.json`` and ``report.html``, each whole or not at all.

        Args:
            directory: Created if absent; other files in it are left alone.

        Returns:
            Path of ``results.json``.

        Raises:
            ResultsError: the results break the schema; nothing is written.
            OSError: the directory cannot be written.
        """
        content = self.to_json()
        validate_results(content)
        page = render_html(self)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / "report.html", page.encode())
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        return write_atomically(directory / "results.json", text.encode())


def write_atomically(path: Path, data: bytes) -> Path:
    """Write a file so that a reader sees the old or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)  # mkstemp gives 0600
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
