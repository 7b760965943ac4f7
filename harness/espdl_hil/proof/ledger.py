"""Runs of one case: made once, noted in its row, explained when they differ."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.diagnosis.cause import Cause
from espdl_hil.proof.accuracy import Kept, measure
from espdl_hil.proof.explain import (
    bundle_comparison,
    diagnose_chip,
    diagnose_comparison,
    diagnose_emulator,
)
from espdl_hil.proof.metric import compare_metric
from espdl_hil.proof.observed import PLAIN, Control, Observer
from espdl_hil.proof.run import Run, RunRole, against_interpreter

if TYPE_CHECKING:
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.comparison import Comparison
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.observed import Observation
    from espdl_hil.proof.rows import RowBook
    from espdl_hil.proof.run import Match


class CaseLedger:
    """What the runs of one case ask for; see ``run.Ledger``."""

    def __init__(self, case: Case, book: RowBook) -> None:
        self._case = case
        self._book = book
        self._record = book.record(case)
        self._observer = Observer(case, book.rig)

    @property
    def expected(self) -> Expected:
        """What the case should give."""
        return self._book.rig.expected(self._case)

    @property
    def substrate(self) -> str:
        """What the device is made of."""
        return self._record.substrate

    def stream(self, control: Control = PLAIN) -> Run:
        """Stream the stimulus; a plain stream is made once."""
        if control != PLAIN:
            seen = self._observer.stream(control)
            return Run(RunRole.STREAM, seen.outputs, self, steps=seen.steps, plain=False)
        if "stream" not in self._record.runs:
            self._keep("stream", RunRole.STREAM, self._observer.stream())
        return self._record.runs["stream"]

    def offline(self) -> Run:
        """The device's offline run, made once."""
        if "offline" not in self._record.runs:
            self._keep("offline", RunRole.OFFLINE, self._observer.offline())
        return self._record.runs["offline"]

    def accuracy(self) -> Kept:
        """What is left of the float model in the device's offline run."""
        expected, offline = self.expected, self.offline().outputs[0]
        kept = measure(expected, offline)
        if self._case.model.metric is not None:
            kept = replace(kept, metric=compare_metric(expected, offline, self.stream().outputs))
        self._book.note_accuracy(self._case, expected, kept)
        return kept

    def note(self, match: Match) -> None:
        """Keep what a comparison of two plain runs found."""
        self._book.note_match(self._case, self.expected, match)

    def explain(self, *matches: Match) -> list[str]:
        """Find out why plain runs differ; the same difference is looked into once.

        All are measured by the device's offline run: if that is wrong, nothing else needs a cause.
        """
        record = self._record
        record.failed = [known for known in record.failed if all(known is not m for m in matches)]
        found = [comparison for match in matches for comparison in match.comparisons]
        candidates = [against_interpreter(self, self.offline()), *found]
        comparison = next(candidate for candidate in candidates if not candidate.passed)
        if comparison.what not in record.explained:
            shown = next((c for c in found if c.streaming and not c.passed), comparison)
            record.explained[comparison.what] = self._explain(comparison, shown)
        what = dict.fromkeys(comparison.what for comparison in found if not comparison.passed)
        known = f"{Cause.EMULATOR}, " if record.deviates else ""
        return [f"{self._case.id}: {known}{'; '.join(what)}", *record.explained[comparison.what]]

    def _explain(self, comparison: Comparison, shown: Comparison) -> list[str]:
        """Find the cause of one comparison, and say it beside the figures of another."""
        book, expected = self._book, self.expected
        emulator = book.rig.dut(self._case.target).info.emulator
        known = diagnose_emulator(comparison, expected, self._observer, emulator)
        self._record.deviates = known is not None
        if known is None and comparison.against == "reference":
            return [str(comparison)]  # the device computes what the file says
        diagnosis = (
            known
            or diagnose_chip(comparison, expected)
            or diagnose_comparison(comparison, expected, self._observer)
        )
        try:
            path = bundle_comparison(
                comparison,
                expected,
                diagnosis,
                folder=book.rig.settings.report / "repro",
                substrate=self.substrate,
                versions=book.environment,
            )
            replay = f"espdl-hil replay {path}"
        except OSError as error:  # the mismatch counts, with or without its bundle
            replay = f"not possible, the bundle cannot be written: {error.strerror or error}"
        diagnosis = replace(diagnosis, summary=f"{shown.what}: {shown.verdict}")
        book.note_diagnosis(self._case, diagnosis, replay)
        return [*diagnosis.text.splitlines(), f"replay    {replay}"]

    def _keep(self, name: str, role: RunRole, seen: Observation) -> None:
        self._book.note_run(self._case, seen)
        self._record.runs[name] = Run(role, seen.outputs, self, steps=seen.steps)
