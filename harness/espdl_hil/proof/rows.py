"""The rows of a run: each check noted, worsened by faults, never mended."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from espdl_hil.compare import Fidelity, Outcome, describe_alignment
from espdl_hil.errors import DeviceError
from espdl_hil.proof.findings import (
    arithmetic_findings,
    chip_findings,
    model_findings,
    vector_unit_findings,
)
from espdl_hil.proof.observed import substrate_of
from espdl_hil.proof.package import streaming_name
from espdl_hil.proof.pictures import draw
from espdl_hil.proof.quality import draw_layers, error_budget
from espdl_hil.quantize import Meaning
from espdl_hil.report import (
    CHECKS,
    Accuracy,
    Check,
    Details,
    Device,
    Latency,
    Results,
    Row,
    commit_of,
    environment,
    worse,
    worse_accuracy,
    worst,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.compare import ChunkVerdict
    from espdl_hil.device.session import DeviceInfo
    from espdl_hil.diagnosis import Diagnosis
    from espdl_hil.proof.accuracy import Kept
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.observed import Observation
    from espdl_hil.proof.rig import Rig
    from espdl_hil.proof.run import Match, Run
    from espdl_hil.report import Allowance


@dataclass
class CaseRecord:
    """All that is known of one case so far.

    Attributes:
        case: The row.
        substrate: What its device is made of.
        runs: Plain runs, made once, by name.
        explained: What was found out about a difference, by what differs.
        failed: Matches of runs that should have been equal, and accuracy that does not do, not
            explained to anybody yet.
        checks: The worst of each comparison, by check and part.
        per_chunk: The chunks of the worst, by check.
        tolerances: Those in force in the worst, by check and part.
        drawn: Pictures of the worst, by check and part: of the stream always, of others where
            something differs.
        budget: What the stream's difference from the float model is made of.
        layers: The streaming file's nodes, with what each keeps of the float network.
        latency_us: Time of each chunk on the chip; empty where there is no chip.
        accuracy: The worst that was measured; None without.
        deviates: Whether the emulator is known to compute every node that differs otherwise.
        outcome: The worst outcome that was noted beside the checks; None without.
        facts: The row's fields that are no verdict.
        details: What a reader wants to see besides.
    """

    case: Case
    substrate: str
    runs: dict[str, Run] = field(default_factory=dict)
    explained: dict[str, list[str]] = field(default_factory=dict)
    failed: list[Match | Kept] = field(default_factory=list)
    checks: dict[tuple[str, str], Check] = field(default_factory=dict)
    per_chunk: dict[str, tuple[ChunkVerdict, ...]] = field(default_factory=dict)
    tolerances: dict[tuple[str, str], tuple[Allowance, ...]] = field(default_factory=dict)
    drawn: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    budget: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)
    latency_us: Sequence[float] = ()
    accuracy: Accuracy | None = None
    outcome: Outcome | None = None
    deviates: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    details: Details = field(default_factory=Details)

    def note(self, match: Match, expected: Expected) -> None:
        """Keep what a match found where it is worse than what was found before."""
        for part, comparison in match.parts.items():
            key, found = (match.check, part), comparison.check
            if worse(self.checks.get(key), found) is found:
                self.checks[key] = found
                self.tolerances[key] = comparison.ledger
                if key == ("streaming", "stream") or found.differing or found.error:
                    self.drawn[key] = draw(comparison, expected)
                if part == "stream":
                    self.per_chunk[match.check] = comparison.verdict.chunks
            if match.check == "streaming":
                frames = max(self.facts.get("frames", 0), comparison.verdict.frames)
                self.facts |= {"chunks": len(comparison.verdict.chunks), "frames": frames}

    @property
    def row(self) -> Row | None:
        """The row so far; None while nothing was compared or measured and nothing went wrong."""
        if not self.checks and self.accuracy is None and self.outcome is None:
            return None
        of: dict[str, list[Check]] = {
            name: [check for (owner, _), check in self.checks.items() if owner == name]
            for name in CHECKS
        }
        checks = {name: sum(found[1:], found[0]) for name, found in of.items() if found}
        outcomes = [check.outcome for check in (*checks.values(), self.accuracy) if check]
        if self.deviates:
            outcomes = [Outcome.DEVIATES if o is Outcome.FAILED else o for o in outcomes]
        model = self.case.model
        return Row(
            id=self.case.id,
            target=self.case.target,
            model=model.name,
            bits=self.case.bits,
            quantization=model.quantization.to_json() if model.offline is None else None,
            chunk_frames=self.case.chunk_frames,
            substrate=self.substrate,
            outcome=worst([*outcomes, *([self.outcome] if self.outcome else [])]),
            checks=checks,
            accuracy=self.accuracy,
            details=replace(
                self.details,
                per_chunk=dict(self.per_chunk),
                pictures=self._pictures,
                tolerances=self._in_force,
            ),
            **self.facts,
        )

    @property
    def _in_force(self) -> tuple[Allowance, ...]:
        """Tolerances in the order of the checks, each once."""
        parts = sorted(self.tolerances, key=lambda key: (CHECKS.index(key[0]), key[1]))
        return tuple(dict.fromkeys(entry for part in parts for entry in self.tolerances[part]))

    @property
    def _pictures(self) -> dict[str, Any]:
        """What the report draws; empty while there is nothing."""
        comparisons = [
            {"check": check, "part": part, **picture}
            for (check, part), pictures in self.drawn.items()
            for picture in pictures
        ]
        if not comparisons and not self.layers:
            return {}
        latency_us = [float(us) for us in self.latency_us]
        return {
            "comparisons": comparisons,
            "budget": self.budget,
            "layers": self.layers,
            "latency_us": latency_us or None,
        }


def real_time_factor(case: Case, median_us: float) -> float | None:
    """Time of a chunk through the time that its frames stand for; None if they have no rate."""
    if case.model.frame_seconds is None:
        return None
    return round(median_us / (1e6 * case.chunk_frames * case.model.frame_seconds), 6)


class RowBook:
    """One row a case, however many tests speak of it.

    Args:
        rig: Owner of the devices.
        command: The command line, for the record.

    Attributes:
        rig: As given.
        environment: Component to version.
    """

    def __init__(self, rig: Rig, *, command: str = "") -> None:
        self.rig = rig
        self.environment = environment()
        self._command = command
        self._date = datetime.now(UTC).isoformat(timespec="seconds")
        self._start_s = time.monotonic()
        self._commit = commit_of(
            source for case in rig.cases if (source := case.model.source) is not None
        )
        self._records: dict[str, CaseRecord] = {}
        self._devices: dict[Device, None] = {}  # an ordered set

    def record(self, case: Case) -> CaseRecord:
        """All that is known of *case*; empty at first."""
        if case.id not in self._records:
            self._records[case.id] = CaseRecord(case, self.rig.settings.substrate)
        return self._records[case.id]

    def note_run(self, case: Case, observation: Observation) -> None:
        """Keep which device ran which bytes of a case, and how long it took."""
        info = self.rig.dut(case.target).info
        self._note_device(info)
        record = self.record(case)
        record.substrate = substrate_of(info)
        record.facts["emulator"] = info.emulator
        board = self.rig.boards.get(case.target)
        record.facts["board"] = board.name if board else ""
        found = arithmetic_findings(info.espdl_version) + vector_unit_findings(observation.steps)
        findings = tuple(dict.fromkeys((*record.details.findings, *found)))
        record.details = replace(record.details, findings=findings)
        known: Mapping[str, str] = record.facts.get("artifacts", {})
        files = {observation.model: observation.sha256, "app": info.app_sha256}
        record.facts["artifacts"] = {**known, **files}
        given: Mapping[str, str] = record.facts.get("outputs", {})
        record.facts["outputs"] = {**given, observation.model: observation.outputs_sha256}
        if observation.model != streaming_name(case):
            return
        record.facts["resources"] = observation.resources
        if observation.latency_us:
            record.latency_us = observation.latency_us
            latency = record.facts["latency_us"] = Latency.of(observation.latency_us)
            record.facts["real_time_factor"] = real_time_factor(case, latency.median)

    def note_match(self, case: Case, expected: Expected, match: Match) -> None:
        """Keep what a comparison of two plain runs found; the worst of each check stays."""
        record = self.record(case)
        record.note(match, expected)
        if not match.equal and all(match is not known for known in record.failed):
            record.failed.append(match)
        self._note_model(record, expected)

    def note_accuracy(self, case: Case, expected: Expected, kept: Kept) -> None:
        """Keep what is left of the float model; too little stays."""
        record = self.record(case)
        record.accuracy = worse_accuracy(record.accuracy, kept.check)
        if not kept and kept not in record.failed:
            record.failed.append(kept)
        self._note_model(record, expected)

    def _note_model(self, record: CaseRecord, expected: Expected) -> None:
        """Keep what the host knows of a case."""
        offline = record.runs.get("offline")
        found = expected.fidelities(offline.outputs[0]).values() if offline is not None else ()
        fidelity = sum(found, Fidelity())
        lint = expected.artifacts.lint[expected.case.chunk_frames]
        doubts = [line for line in expected.artifacts.log if line.meaning is not Meaning.HARMLESS]
        findings = (
            *record.details.findings,
            *model_findings([*lint, *expected.not_shown]),
            *chip_findings(expected.chip_made, record.case),
        )
        record.facts |= {"sqnr_db": fidelity.sqnr_db, "cosine": fidelity.cosine}
        stream = record.runs.get("stream")
        if stream is not None and offline is not None and not record.budget:
            record.budget = error_budget(expected, stream.outputs, offline.outputs[0])
        record.layers = record.layers or draw_layers(expected)
        record.details = replace(
            record.details,
            alignment=tuple(map(describe_alignment, expected.plan.alignments)),
            lane_warnings=expected.lane_warnings,
            findings=tuple(dict.fromkeys(findings)),
            notes=(
                *expected.artifacts.notes(record.case.chunk_frames),
                *(f"esp-ppq: {line.text}" for line in doubts),
            ),
        )

    def note_outcome(self, case: Case, outcome: Outcome, error: str) -> None:
        """Let a test's outcome count for its row; the worst one stays, with its *error*.

        A row cannot pass without a check.
        """
        if outcome is Outcome.PASSED:
            return
        record = self.record(case)
        before, record.outcome = record.outcome, worst([outcome, record.outcome or outcome])
        text = record.details.error
        if error and (not text or record.outcome is not before):
            record.details = replace(record.details, error=error)

    def note_diagnosis(self, case: Case, diagnosis: Diagnosis, replay: str) -> None:
        """Keep why a row failed, the first cause that was found, and how to see it again."""
        record = self.record(case)
        record.facts.setdefault("diagnosis", diagnosis.to_json())
        details = record.details
        record.details = replace(details, replay=(*details.replay, replay))

    def explain(self, case: Case) -> list[str]:
        """Say why the runs of *case* differ that should have been equal.

        Returns:
            Lines, each said once: of what differs now, not of what was asked for before. Empty if
            nothing differs.
        """
        failed, self.record(case).failed = self.record(case).failed, []
        lines = [line for match in failed for line in match.explain()]
        return list(dict.fromkeys(lines))

    def row(self, case: Case) -> Row | None:
        """The row of *case* so far; None if there is nothing to say yet."""
        return self.record(case).row

    @property
    def results(self) -> Results:
        """Everything so far, in the order of the cases' first checks."""
        for dut in self.rig.duts:
            with contextlib.suppress(DeviceError):  # it is gone: what it was is noted already
                self._note_device(dut.info)
        rows = (record.row for record in self._records.values())
        return Results(
            date=self._date,
            duration_s=time.monotonic() - self._start_s,
            command=self._command,
            commit=self._commit,
            environment=self.environment,
            devices=tuple(self._devices),
            incidents=self.rig.incidents,
            written=self.rig.written,
            rows=tuple(row for row in rows if row is not None),
        )

    def _note_device(self, info: DeviceInfo) -> None:
        device = Device(
            target=info.target,
            substrate=substrate_of(info),
            chip=info.chip,
            revision=info.revision,
            port=info.port,
            app_sha256=info.app_sha256,
            boot_nonce=info.boot_nonce,
            emulator=info.emulator,
            espdl_version=info.espdl_version,
            idf_version=info.idf_version,
        )
        self._devices[device] = None
