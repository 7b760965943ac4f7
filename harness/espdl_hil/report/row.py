"""One row of the report and what it is made of. Knows numbers and JSON, not how they came."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from espdl_hil.compare import ChunkVerdict, Outcome
from espdl_hil.report.accuracy import Accuracy, worse_accuracy
from espdl_hil.report.check import SEVERITY, Check, JsonObject, known, largest, read, worse
from espdl_hil.report.schema import ACCURACY, CHECKS, SILICON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Device:
    """A devkit that rows were measured on.

    Attributes:
        target: ESP-IDF target name.
        substrate: ``simulated``, ``emulated`` or ``silicon``.
        chip: The name that the chip gives itself.
        revision: Chip revision, major * 100 + minor.
        port: The port as the user would name it.
        app_sha256: Hash of the app, as the device reports it.
        boot_nonce: Drawn at boot: another value is another boot.
        emulator: Name and version of what emulates the chip; empty if nothing does.
        espdl_version: ESP-DL that the app was built with.
        idf_version: ESP-IDF that it was built with.
    """

    target: str
    substrate: str
    chip: str
    revision: int
    port: str
    app_sha256: str
    boot_nonce: str
    emulator: str = ""
    espdl_version: str = ""
    idf_version: str = ""


@dataclass(frozen=True)
class Latency:
    """Time of a chunk on the chip, over the chunks of a stream, in microseconds."""

    median: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, samples_us: Sequence[float]) -> Latency:
        """Summarize one sample a chunk; at least one.

        >>> Latency.of([10, 11, 30])
        Latency(median=11.0, p95=28.1, p99=29.62, max=30.0)
        """
        median, p95, p99 = (round(float(np.percentile(samples_us, q)), 3) for q in (50, 95, 99))
        return cls(median, p95, p99, float(max(samples_us)))


@dataclass(frozen=True)
class Resources:
    """What a streaming model takes of its chip; None for what the firmware does not know.

    Attributes:
        cpu_mhz: Clock of the CPU, which turns times into cycles.
        model_bytes: Size of the model's file.
        app_bytes: Size of the app's image.
        load_us: Time that loading took.
        internal_bytes: Internal RAM that was taken by loading.
        psram_bytes: PSRAM that was.
        internal_peak_bytes: Most internal RAM in use since then, the app's own included.
        psram_peak_bytes: Most PSRAM.
        stack_free_bytes: Least that was ever free of the stack of the task that runs models.
    """

    cpu_mhz: int
    model_bytes: int
    app_bytes: int
    load_us: int | None
    internal_bytes: int | None
    psram_bytes: int | None
    internal_peak_bytes: int | None
    psram_peak_bytes: int | None
    stack_free_bytes: int | None


@dataclass(frozen=True)
class Allowance:
    """One tolerance in force.

    Attributes:
        check: Of which check, by name of ``CHECKS``.
        kind: ``declared`` by the model, ``derived`` from the arithmetic of a node, ``default``.
        where: ``outputs``, or the node.
        allowed: How far an element may be off, in words.
        used: How far one was, in words; empty if none was off.
        reason: Why.
    """

    check: str
    kind: str
    where: str
    allowed: str
    used: str
    reason: str


@dataclass(frozen=True)
class Details:
    """What a reader wants to see of a row and a gate does not need.

    Attributes:
        error: Why the row did not pass, if not for the elements that differ.
        alignment: What each chunk was compared with, a line per output.
        per_chunk: The verdict of each chunk, by check.
        lane_warnings: Nodes whose accumulators saturated: elements, quality lost, what helps.
        findings: What puts a row in doubt whatever its outcome, a sentence each.
        tolerances: Every tolerance in force: declared, derived and default.
        pictures: What the page draws, see ``docs/results.md``; empty without a comparison.
        notes: Anything else, a sentence each.
        replay: Commands that replay the row's repro bundles.
    """

    error: str = ""
    alignment: tuple[str, ...] = ()
    per_chunk: Mapping[str, tuple[ChunkVerdict, ...]] = field(default_factory=dict)
    lane_warnings: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    tolerances: tuple[Allowance, ...] = ()
    pictures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Details:
        """Read what ``to_json`` wrote, or as much of it as another writer has."""
        return cls(
            error=data.get("error", ""),
            per_chunk={name: _chunks(found) for name, found in data.get("per_chunk", {}).items()},
            pictures=data.get("pictures", {}),
            tolerances=tuple(read(Allowance, found) for found in data.get("tolerances", ())),
            **{name: tuple(data.get(name, ())) for name in _LISTS},
        )

    def to_json(self) -> JsonObject:
        """The object that ``results.json`` keeps; equal chunks in a row are one entry."""
        return {
            "error": self.error,
            **{name: list(getattr(self, name)) for name in _LISTS},
            "per_chunk": {name: _runs(found) for name, found in self.per_chunk.items()},
            "tolerances": [asdict(allowance) for allowance in self.tolerances],
            "pictures": dict(self.pictures),
        }


@dataclass(frozen=True)
class Row:
    """One model on one target at one width and chunk size.

    Attributes:
        id: The test id, ``esp32s3-tcn-int8-chunk3``.
        target: ESP-IDF target name.
        model: The model's name.
        bits: Quantization width.
        chunk_frames: Input frames a chunk; None for a model run whole.
        substrate: ``simulated``, ``emulated`` or ``silicon``.
        outcome: The worst that was found; ``failed`` is about numbers, ``error`` about getting
            them.
        chunks: Chunks of the stream.
        frames: Output frames of the stream that were compared with the offline run.
        checks: By name of ``CHECKS``; one that is missing was not made.
        accuracy: What the offline run keeps of the float model; None if it was not measured.
        sqnr_db: Signal to quantization noise against the float model, over all outputs; None if
            undefined.
        cosine: Cosine against the float model; None if undefined.
        quantization: The settings that it was quantized with; None for files from elsewhere.
        emulator: Name and version of what emulates the chip; empty if nothing does.
        board: The lab's name of the board, or its port; empty for a device of this run alone.
        real_time_factor: Median time of a chunk through the time that its frames stand for: below 1
            the chip keeps up. None without a chip, or where frames have no rate.
        latency_us: None where there is no chip, whose time alone counts.
        resources: What the model takes of the chip; None where there is none.
        artifacts: File name to sha256.
        outputs: Model on the device to sha256 of all that its plain run gave.
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
    quantization: Mapping[str, Any] | None = None
    emulator: str = ""
    board: str = ""
    real_time_factor: float | None = None
    latency_us: Latency | None = None
    resources: Resources | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    diagnosis: Mapping[str, Any] | None = None
    details: Details = Details()

    def __post_init__(self) -> None:
        if self.substrate != SILICON and (self.latency_us or self.resources):
            raise ValueError(f"row {self.id}: a device that is {self.substrate} measures no chip")

    @property
    def latency_cycles(self) -> dict[str, int] | None:
        """The latency in cycles of the CPU, whose clock is fixed."""
        if self.latency_us is None or self.resources is None:
            return None
        mhz = self.resources.cpu_mhz
        return {name: round(us * mhz) for name, us in vars(self.latency_us).items()}

    @property
    def device(self) -> str:
        """What it ran on, as people read it."""
        return f"{self.substrate} ({self.emulator})" if self.emulator else self.substrate

    @property
    def is_verdict(self) -> bool:
        """Whether anything was compared or went wrong; enough accuracy alone is no verdict."""
        return bool(self.checks) or self.outcome is not Outcome.PASSED

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
        steps: int | None = largest(*(check.max_lsb for check in self.checks.values()))
        return steps

    @property
    def metric(self) -> Mapping[str, float] | None:
        """What the model's own metric gives, by name of ``METRIC``; None without one."""
        return self.accuracy.metric if self.accuracy else None

    @property
    def reason(self) -> str:
        """Why it did not pass, in one line; the cause if it is known."""
        if self.outcome is Outcome.PASSED:
            return ""
        if self.diagnosis:
            return str(self.diagnosis["cause"])
        wrong = [c for c in self.checks.values() if c.outcome is not Outcome.PASSED]
        if self.outcome is Outcome.FAILED and (
            first := next((c.first for c in wrong if not c.error), None)
        ):
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
        owners = {
            name: other if checks[name] is other.checks.get(name) else self for name in checks
        }
        details = replace(
            full.details,
            tolerances=tuple(
                entry
                for name, row in owners.items()
                for entry in row.details.tolerances
                if entry.check == name
            ),
            error=bad.details.error or self.details.error or other.details.error,
            per_chunk=per_chunk,
            pictures=_united(self.details.pictures, other.details.pictures),
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
            outputs={**self.outputs, **other.outputs},
            latency_us=self.latency_us or other.latency_us,
            resources=self.resources or other.resources,
            real_time_factor=self.real_time_factor or other.real_time_factor,
            diagnosis=self.diagnosis or other.diagnosis,
            details=details,
        )

    def to_json(self) -> JsonObject:
        """The row as ``results.json`` keeps it."""
        made = {name: self.checks.get(name) for name in CHECKS} | {ACCURACY: self.accuracy}
        return {
            **{name: getattr(self, name) for name in (*_PLAIN, "quantization")},
            "outcome": str(self.outcome),
            "checks": {name: check and check.to_json() for name, check in made.items()},
            "latency_us": self.latency_us and asdict(self.latency_us),
            "latency_cycles": self.latency_cycles,
            "resources": self.resources and asdict(self.resources),
            "artifacts": dict(self.artifacts),
            "outputs": dict(self.outputs),
            "diagnosis": None if self.diagnosis is None else dict(self.diagnosis),
            "details": self.details.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_json`` wrote."""
        latency, resources = data["latency_us"], data.get("resources")
        checks = {name: check for name, check in data["checks"].items() if check is not None}
        accuracy = checks.pop(ACCURACY, None)
        return cls(
            **{name: data[name] for name in (*_PLAIN, "artifacts", "outputs", "diagnosis")},
            quantization=data.get("quantization"),
            outcome=Outcome(data["outcome"]),
            checks={name: Check.from_json(check) for name, check in checks.items()},
            accuracy=accuracy and Accuracy.from_json(accuracy),
            latency_us=latency and read(Latency, latency),
            resources=resources and read(Resources, resources),
            details=Details.from_json(data.get("details", {})),
        )


_LISTS = ("alignment", "lane_warnings", "findings", "notes", "replay")


def _runs(chunks: Sequence[ChunkVerdict]) -> list[JsonObject]:
    """Equal neighbours as one object: the number of the first, and how many they are."""
    runs: list[JsonObject] = []
    for verdict in chunks:
        entry = {**vars(verdict), "outcome": str(verdict.outcome)}
        chunk = entry.pop("chunk")
        if runs and {**entry, **{n: runs[-1][n] for n in ("chunk", "chunks")}} == runs[-1]:
            runs[-1]["chunks"] += 1
        else:
            runs.append({"chunk": chunk, "chunks": 1, **entry})
    return runs


def _chunks(runs: Sequence[JsonObject]) -> tuple[ChunkVerdict, ...]:
    """What ``_runs`` was given."""
    return tuple(
        ChunkVerdict(
            **{**known(ChunkVerdict, run), "chunk": number, "outcome": Outcome(run["outcome"])}
        )
        for run in runs
        for number in range(run["chunk"], run["chunk"] + run["chunks"])
    )


def _united(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """Pictures of two processes: of one that both have drawn, the one in which most differs."""
    if not one or not other:
        return one or other
    drawn: dict[tuple[str, ...], Any] = {}
    for picture in (*one["comparisons"], *other["comparisons"]):
        key = tuple(picture[name] for name in ("check", "part", "output"))
        drawn[key] = max(drawn.get(key, picture), picture, key=lambda found: found["differing"])
    rest = {name: one[name] or other[name] for name in ("budget", "layers", "latency_us")}
    return {"comparisons": list(drawn.values()), **rest}


_PLAIN = (
    *("id", "target", "model", "bits", "chunk_frames", "substrate"),
    *("chunks", "frames", "sqnr_db", "cosine", "emulator", "board", "real_time_factor"),
)
