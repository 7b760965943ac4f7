"""One row of the report and what it is made of. Knows numbers and JSON, not how they came."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from espdl_hil.compare import ChunkVerdict, FirstDifference, Outcome, StreamVerdict, Tolerance
from espdl_hil.report.accuracy import Accuracy, worse_accuracy
from espdl_hil.report.schema import ACCURACY, CHECKS, SIMULATED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JsonObject = dict[str, Any]
SEVERITY = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR)


def known(kind: type, data: Mapping[str, Any]) -> JsonObject:
    """Return what a dataclass has fields for; a later writer may have said more."""
    return {item.name: data[item.name] for item in fields(kind)}


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the worst of some outcomes: error, then failed, then passed."""
    return max(outcomes, key=SEVERITY.index)


@dataclass(frozen=True)
class Device:
    """A devkit that rows were measured on.

    Attributes:
        target: ``esp32s3`` or ``esp32p4``.
        substrate: ``simulated`` or ``silicon``.
        chip: The name that the chip gives itself.
        revision: Chip revision, major * 100 + minor.
        port: The port as the user would name it.
        app_sha256: Hash of the app, as the device reports it.
        boot_nonce: Drawn at boot: another value is another boot.
    """

    target: str
    substrate: str
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
class Check:
    """What one comparison of a row found.

    Attributes:
        outcome: ``failed`` is about numbers, ``error`` about comparing them.
        elements: Elements that were expected.
        compared: Those that were compared; the rest has no counterpart, or is missing.
        differing: Compared elements that are not the same.
        max_lsb: Largest difference in steps; None if only float outputs were compared.
        max_relative: Largest relative difference of float outputs; None without any.
        first: The first difference; None without any.
        tolerance: What still counts as equal, in words.
        error: What could not be compared, or what else was wrong; empty without.
    """

    outcome: Outcome
    elements: int
    compared: int
    differing: int
    max_lsb: int | None
    max_relative: float | None
    first: FirstDifference | None
    tolerance: str
    error: str = ""

    @classmethod
    def of(
        cls, verdict: StreamVerdict, *, elements: int, tolerance: Tolerance, error: str = ""
    ) -> Check:
        """Keep a verdict.

        Args:
            verdict: The comparison.
            elements: Elements that were expected.
            tolerance: What counted as equal.
            error: What was wrong although the numbers agree; it fails the check.
        """
        return cls(
            outcome=worst([verdict.outcome, Outcome.FAILED if error else Outcome.PASSED]),
            elements=elements,
            compared=verdict.elements,
            differing=verdict.differing,
            max_lsb=verdict.max_lsb,
            max_relative=verdict.max_relative,
            first=verdict.first,
            tolerance=str(tolerance),
            error="; ".join(filter(None, [error, *verdict.errors])),
        )

    def __add__(self, other: Check) -> Check:
        """Both as one check, when it is made of two comparisons."""
        return Check(
            outcome=worst([self.outcome, other.outcome]),
            elements=self.elements + other.elements,
            compared=self.compared + other.compared,
            differing=self.differing + other.differing,
            max_lsb=_largest(self.max_lsb, other.max_lsb),
            max_relative=_largest(self.max_relative, other.max_relative),
            first=self.first or other.first,
            tolerance=self.tolerance,
            error="; ".join(filter(None, [self.error, other.error])),
        )

    @property
    def severity(self) -> tuple[int, int]:
        """Sorts checks: the worst outcome is largest, then the one in which most differs."""
        return SEVERITY.index(self.outcome), self.differing

    def to_json(self) -> JsonObject:
        """The check as ``results.json`` keeps it."""
        first = None if self.first is None else first_to_json(self.first)
        return {**vars(self), "outcome": str(self.outcome), "first": first} | {
            "max_relative": _finite(self.max_relative)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Check:
        """Read what ``to_json`` wrote."""
        first = data["first"]
        values: JsonObject = {
            **known(cls, data),
            "outcome": Outcome(data["outcome"]),
            "first": first and _first_from_json(first),
            "max_relative": data["max_relative"] and float(data["max_relative"]),
        }
        return cls(**values)


def first_to_json(first: FirstDifference) -> JsonObject:
    """The six fields that the schema names; NaN and infinities become strings."""
    values = {name: getattr(first, name) for name in ("chunk", "frame", "channel", "output")}
    return values | {name: _finite(getattr(first, name)) for name in ("expected", "observed")}


def _finite(value: float | None) -> float | str | None:
    return value if value is None or np.isfinite(value) else str(value)


def _first_from_json(data: Mapping[str, Any]) -> FirstDifference:
    values = {name: data[name] for name in ("chunk", "frame", "channel", "output")}
    expected, observed = (
        float(value) if isinstance(value, str) else value
        for value in (data["expected"], data["observed"])
    )
    return FirstDifference(**values, expected=expected, observed=observed)


def _largest(*values: Any) -> Any:
    return max((value for value in values if value is not None), default=None)


def worse(one: Check | None, other: Check | None) -> Check | None:
    """The worse of two; the first of equally bad ones."""
    return max(filter(None, [one, other]), key=lambda check: check.severity, default=None)


@dataclass(frozen=True)
class Details:
    """What a reader wants to see of a row and a gate does not need.

    Attributes:
        error: Why the row did not pass, if not for the elements that differ.
        alignment: What each chunk was compared with, a line per output.
        per_chunk: The verdict of each chunk, by check.
        lane_warnings: Nodes whose sums a stimulus could drive out of the S3's 20-bit lanes.
        ladder: What each layer of the offline file keeps of the float network, a line each.
        notes: Anything else, a sentence each.
        replay: Commands that replay the row's repro bundles.
    """

    error: str = ""
    alignment: tuple[str, ...] = ()
    per_chunk: Mapping[str, tuple[ChunkVerdict, ...]] = field(default_factory=dict)
    lane_warnings: tuple[str, ...] = ()
    ladder: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Details:
        """Read what ``asdict`` and JSON made of it."""
        chunks = {
            name: tuple(
                ChunkVerdict(**{**known(ChunkVerdict, chunk), "outcome": Outcome(chunk["outcome"])})
                for chunk in found
            )
            for name, found in data["per_chunk"].items()
        }
        lists = ("alignment", "lane_warnings", "ladder", "notes", "replay")
        return cls(
            error=data["error"], per_chunk=chunks, **{name: tuple(data[name]) for name in lists}
        )


@dataclass(frozen=True)
class Row:
    """One model on one target at one width and chunk size.

    Attributes:
        id: The test id, ``esp32s3-tcn-int8-chunk3``.
        target: ``esp32s3`` or ``esp32p4``.
        model: The model's name.
        bits: Quantization width.
        chunk_frames: Input frames a chunk; None for a model run whole.
        substrate: ``simulated`` or ``silicon``.
        outcome: The worst that was found; ``failed`` is about numbers, ``error`` about getting
            them.
        chunks: Chunks of the stream.
        frames: Output frames of the stream that were compared with the offline run.
        checks: By name of ``CHECKS``; one that is missing was not made.
        accuracy: What the offline run keeps of the float model; None if it was not measured.
        sqnr_db: Signal to quantization noise against the float model, over all outputs; None if
            undefined.
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
    substrate: str
    outcome: Outcome
    chunks: int = 0
    frames: int = 0
    checks: Mapping[str, Check] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    sqnr_db: float | None = None
    cosine: float | None = None
    latency_us: Latency | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None
    details: Details = Details()

    def __post_init__(self) -> None:
        if self.substrate == SIMULATED and self.latency_us is not None:
            raise ValueError(f"row {self.id}: a simulated device measures no chip time")

    @property
    def elements(self) -> int:
        """Elements compared, over all checks."""
        return sum(check.compared for check in self.checks.values())

    @property
    def differing(self) -> int:
        """Elements that are not the same, over all checks."""
        return sum(check.differing for check in self.checks.values())

    @property
    def max_lsb(self) -> int | None:
        """The largest difference of any check, in steps."""
        largest: int | None = _largest(*(check.max_lsb for check in self.checks.values()))
        return largest

    @property
    def reason(self) -> str:
        """Why it did not pass, in one line; the cause if it is known."""
        if self.outcome is Outcome.PASSED:
            return ""
        if self.diagnosis:
            return str(self.diagnosis["cause"])
        wrong = [c for c in self.checks.values() if c.outcome is not Outcome.PASSED]
        if self.outcome is Outcome.FAILED and (first := next((c.first for c in wrong), None)):
            return f"chunk {first.chunk}, {first}"
        lacking = self.accuracy.error if self.accuracy else ""
        said = (self.details.error, *(check.error for check in wrong), lacking)
        if lacking and self.outcome is Outcome.FAILED:
            return lacking
        return next(filter(None, said), "no reason was recorded").partition("\n")[0]

    def merged(self, other: Row) -> Row:
        """This row with what another process found out about the same one: the worst stays."""
        bad = max(self, other, key=lambda row: SEVERITY.index(row.outcome))
        full = max(self, other, key=lambda row: len(row.checks))  # a row of errors knows little
        checks = {
            name: found
            for name in CHECKS
            if (found := worse(self.checks.get(name), other.checks.get(name)))
        }
        theirs = other.details.per_chunk
        per_chunk = {**theirs, **self.details.per_chunk} | {
            name: theirs[name] for name in theirs if checks.get(name) is other.checks.get(name)
        }
        details = replace(
            full.details,
            error=bad.details.error or self.details.error or other.details.error,
            per_chunk=per_chunk,
            replay=tuple(dict.fromkeys(self.details.replay + other.details.replay)),
        )
        return replace(
            full,
            outcome=bad.outcome,
            checks=checks,
            accuracy=worse_accuracy(self.accuracy, other.accuracy),
            chunks=max(self.chunks, other.chunks),
            frames=max(self.frames, other.frames),
            artifacts={**self.artifacts, **other.artifacts},
            latency_us=self.latency_us or other.latency_us,
            diagnosis=self.diagnosis or other.diagnosis,
            details=details,
        )

    def to_json(self) -> JsonObject:
        """The row as ``results.json`` keeps it."""
        made = {name: self.checks.get(name) for name in CHECKS} | {ACCURACY: self.accuracy}
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "outcome": str(self.outcome),
            "checks": {name: check and check.to_json() for name, check in made.items()},
            "latency_us": None if self.latency_us is None else asdict(self.latency_us),
            "artifacts": dict(self.artifacts),
            "diagnosis": None if self.diagnosis is None else dict(self.diagnosis),
            "details": asdict(self.details),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        latency = data["latency_us"]
        checks = {name: check for name, check in data["checks"].items() if check is not None}
        accuracy = checks.pop(ACCURACY, None)
        return cls(
            **{name: data[name] for name in (*_PLAIN, "artifacts", "diagnosis")},
            outcome=Outcome(data["outcome"]),
            checks={name: Check.from_json(check) for name, check in checks.items()},
            accuracy=accuracy and Accuracy.from_json(accuracy),
            latency_us=None if latency is None else Latency(**known(Latency, latency)),
            details=Details.from_json(data["details"]),
        )


_PLAIN = (
    *("id", "target", "model", "bits", "chunk_frames", "substrate"),
    *("chunks", "frames", "sqnr_db", "cosine"),
)
