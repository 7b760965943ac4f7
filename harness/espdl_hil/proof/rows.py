"""The rows of a session: noted by checks, worsened by faults, written at the end."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from espdl_hil.compare import Outcome, describe_alignment
from espdl_hil.proof.explain import bundle, diagnose_mismatch
from espdl_hil.report import Details, Device, Latency, Results, Row

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.compare import StreamVerdict
    from espdl_hil.device.dut import Dut
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.explain import Mismatch
    from espdl_hil.proof.hil import Hil, Observation

_COMPONENTS = ("espdl-hil", "esp-ppq", "torch", "numpy", "esptool", "pytest", "pytest-embedded")
_SEVERITY = [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR]


class RowBook:
    """One row a case, however many tests speak of it.

    Attributes:
        observations: What the device gave, by case id.
    """

    def __init__(self) -> None:
        self.observations: dict[str, Observation] = {}
        self._rows: dict[str, Row] = {}
        self._results = Results(environment=_environment())

    @property
    def results(self) -> Results:
        """Everything so far, in the order of the cases' first tests."""
        return replace(self._results, rows=list(self._rows.values()))

    def note_device(self, dut: Dut) -> None:
        """Record the device that a target's rows ran on."""
        info = dut.info
        self._results.add_device(
            Device(
                target=info.target,
                kind=info.kind,
                chip=info.chip,
                revision=info.revision,
                port=info.port,
                app_sha256=info.app_sha256,
                boot_nonce=info.boot_nonce,
            )
        )

    def note_streaming(self, hil: Hil, verdict: StreamVerdict) -> None:
        """Note the verdict that a row is about, with the figures around it."""
        expected, seen = hil.expected, hil.observe()
        self.note_device(hil.dut)
        files = {**seen.hashes, "app": hil.dut.info.app_sha256}
        self._rows[hil.case.id] = Row.of_verdict(
            verdict,
            fidelity=expected.fidelity(seen.offline),
            **_identity(hil.case, hil.dut.info.kind),
            reference=hil.judge_reference(),
            latency_us=Latency.of(seen.latency_us) if seen.latency_us else None,
            artifacts=files,
            details=Details(
                alignment=tuple(map(describe_alignment, expected.plan.alignments)),
                lane_warnings=expected.lane_warnings,
                notes=tuple(line.text for line in expected.artifacts.log),
            ),
        )

    def note_outcome(self, case: Case, kind: str, outcome: Outcome, error: str) -> None:
        """Let a test's outcome count for its row; the worst one stays.

        Args:
            case: The row.
            kind: ``simulated`` or ``serial``, for a row that no device has answered for yet.
            outcome: What the test came to.
            error: Why, for an outcome other than passed.
        """
        row = self._rows.get(case.id)
        if row is None:
            if outcome == Outcome.PASSED:
                return  # only a verdict can pass a row
            row = _blank(case, kind, outcome)
        if _SEVERITY.index(outcome) >= _SEVERITY.index(row.outcome) and error:
            text = row.details.error or error
            row = replace(row, outcome=outcome, details=replace(row.details, error=text))
        self._rows[case.id] = row

    def explain(self, hil: Hil, mismatch: Mismatch, report: Path) -> str:
        """Diagnose a mismatch, bundle it, note both in its row, and say it in a dozen lines.

        Args:
            hil: The case.
            mismatch: What differs.
            report: Folder of the report.
        """
        case = hil.case
        diagnosis = diagnose_mismatch(hil, mismatch)
        path = bundle(hil, mismatch, diagnosis, report / "repro")
        replay = f"espdl-hil replay {path}"
        row = self._rows.get(case.id) or _blank(case, hil.dut.info.kind, Outcome.FAILED)
        self._rows[case.id] = replace(
            row,
            diagnosis=diagnosis.to_json() if diagnosis else row.diagnosis,
            details=replace(row.details, replay=replay),
        )
        text = diagnosis.text if diagnosis else f"{mismatch.verdict}\nno diagnosis: device lost"
        return f"{case.id}: {mismatch.what}\n{text}\nreplay    {replay}"

    def write(self, directory: Path) -> Path:
        """Write the report; returns the path of ``results.json``."""
        return self.results.write(directory)


def _blank(case: Case, kind: str, outcome: Outcome) -> Row:
    """A row without a verdict."""
    return Row(outcome=outcome, max_lsb=None, **_identity(case, kind))


def _identity(case: Case, kind: str) -> dict[str, Any]:
    return {
        "id": case.id,
        "target": case.target,
        "model": case.model.name,
        "bits": case.bits,
        "chunk_frames": case.chunk_frames,
        "device_kind": kind,
    }


def _environment() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _COMPONENTS:
        versions[name] = importlib.metadata.version(name)
    return versions
