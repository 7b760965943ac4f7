"""What is compared with what, and what counts as equal. Knows arrays, not devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.compare import EXACT, Outcome, Tolerance, compare_streams, relative_difference
from espdl_hil.operators import float_step_lsb
from espdl_hil.proof.probe import canary_remarks
from espdl_hil.proof.tolerances import (
    interpreter_ledger,
    reference_ledger,
    streaming_ledger,
    summary,
)
from espdl_hil.report import SIMULATED, Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.compare import Array, StreamVerdict, Tensors
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.proof.expected import Expected
    from espdl_hil.reference import Judged
    from espdl_hil.report import Allowance


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run and what it should have given, compared in every element.

    Attributes:
        what: Says what differs, if anything does.
        streaming: Whether the streaming model ran, chunk by chunk, or the offline one, whole.
        expected: What each step should have given.
        observed: What each step gave.
        verdict: What was found.
        tolerance: What counted as equal.
        against: Who says what is expected: ``offline`` (the device's offline run), ``interpreter``,
            ``reference`` or ``stream`` (another run of the same model).
        steps: What the device said of its steps besides; empty when no device ran.
        judged: Against the reference, each node of the file on the reference's own inputs.
        ledger: Every tolerance that was in force.
    """

    what: str
    streaming: bool
    expected: Sequence[Tensors]
    observed: Sequence[Tensors]
    verdict: StreamVerdict
    tolerance: Tolerance
    against: str
    steps: Sequence[StepResult] = ()
    judged: Sequence[Judged] = ()
    ledger: tuple[Allowance, ...] = ()

    @property
    def faults(self) -> str:
        """What is wrong whatever the outputs are: an unwritten one, nodes off the reference."""
        wrong = [node for node in self.judged if not node.within]
        more = f"; {len(wrong) - 1} more nodes" if len(wrong) > 1 else ""
        return "; ".join(filter(None, [self.unwritten, f"{wrong[0]}{more}" if wrong else ""]))

    @property
    def unwritten(self) -> str:
        """The device's first remark that it left an output unwritten, which fails any run."""
        for number, step in enumerate(self.steps):
            if step.unwritten is not None:
                return f"chunk {number}: {canary_remarks([step])[0]}"
        return ""

    @property
    def passed(self) -> bool:
        """Whether everything was compared, and nothing differs by more than it may."""
        return self.verdict.outcome is Outcome.PASSED and not self.faults

    @property
    def check(self) -> Check:
        """The numbers that a row keeps."""
        elements = sum(array.size for chunk in self.expected for array in chunk.values())
        return Check.of(
            self.verdict,
            elements=elements,
            tolerance=summary(self.ledger) or self.tolerance,
            error=self.faults,
        )

    def __str__(self) -> str:
        return "; ".join(filter(None, [f"{self.what}: {self.verdict}", self.faults]))


def compare_streaming(
    expected: Expected,
    stream: Sequence[Tensors],
    offline: Tensors,
    steps: Sequence[StepResult] = (),
) -> Comparison:
    """Compare the outputs of a stream's *steps* with an offline run of the whole stimulus.

    A model that accepts the chip's rounding has to give what is predicted of it, to the element.
    """
    wanted, seen = expected.cut(offline), expected.trim(stream)
    accepted = ""
    if expected.case.model.chip_rounding == "accept" and (made := expected.chip_made):
        wanted, accepted = made.allow(wanted), str(made)
    tolerance = expected.case.tolerance
    verdict = aligned_verdict(expected, wanted, seen, tolerance)
    what = "the stream differs from the offline run"
    ledger = streaming_ledger(verdict, tolerance, accepted)
    return Comparison(
        what, True, wanted, seen, verdict, tolerance, "offline", steps=steps, ledger=ledger
    )


def aligned_verdict(
    expected: Expected, wanted: Sequence[Tensors], seen: Sequence[Tensors], tolerance: Tolerance
) -> StreamVerdict:
    """Compare a stream with what was cut for it, without the frames that have no counterpart."""
    return compare_streams(
        wanted,
        seen,
        tolerance,
        frame_axes=expected.frame_axes,
        skip_frames=expected.skip_frames,
        silent_chunks=expected.silent_chunks,
    )


def compare_alike(
    expected: Expected,
    wanted: Sequence[Tensors],
    seen: Sequence[Tensors],
    *,
    what: str,
    streaming: bool,
    against: str,
    tolerance: Tolerance = EXACT,
    steps: Sequence[StepResult] = (),
) -> Comparison:
    """Compare two runs of the same kind, step by step; see ``Comparison`` for the arguments."""
    verdict = compare_streams(wanted, seen, tolerance, frame_axes=expected.axes(wanted[0]))
    ledger = interpreter_ledger(verdict, tolerance) if against == "interpreter" else ()
    return Comparison(
        what, streaming, wanted, seen, verdict, tolerance, against, steps=steps, ledger=ledger
    )


def interpreter_tolerance(expected: Expected, substrate: str) -> Tolerance:
    """How far a device may be from the interpreter: the largest of its nodes' float steps.

    Real firmware alone has a compiler that may reorder them; a simulated devkit is exact.
    """
    if substrate == SIMULATED:
        return EXACT
    target, nodes = expected.case.target, expected.offline_graph.nodes
    steps_lsb = max((float_step_lsb(node, target) for node in nodes), default=0)
    return Tolerance(max_lsb=steps_lsb) if steps_lsb else EXACT


def compare_reference(expected: Expected, offline: Tensors, substrate: str) -> Comparison:
    """Compare an offline run with the exporter's own execution.

    Each node of the file must give what the reference's own inputs give, within what its arithmetic
    allows. Then what the nodes together make of it is explained, however large it has become: an
    output may be as far from the reference as the interpreter's run of the file is, and no further.
    """
    reference, judged = expected.artifacts.reference, expected.judged
    tolerance = expected.case.tolerance
    board = interpreter_tolerance(expected, substrate)
    seen = {node.tensor for node in judged}
    rooms = {
        name: _room(value, expected.offline[name] if name in seen else value, board)
        for name, value in reference.items()
    }
    verdict = compare_streams(
        [reference], [offline], tolerance, frame_axes=expected.axes(reference), rooms=[rooms]
    )
    return Comparison(
        "the offline run differs from the exporter's reference",
        False,
        [reference],
        [offline],
        verdict,
        tolerance,
        "reference",
        judged=judged,
        ledger=reference_ledger(verdict, tolerance, judged, rooms),
    )


def _room(reference: Array, file: Array, board: Tolerance) -> Array:
    """How far each element of an output may be off: as the file makes it, and the board's steps."""
    if reference.shape != file.shape:  # not comparable, and said so elsewhere
        return np.zeros(reference.shape)
    if reference.dtype.kind == "f":
        return relative_difference(reference, file) + board.relative
    steps: Array = np.abs(np.subtract(file, reference, dtype=np.int64))
    return steps + board.max_lsb
