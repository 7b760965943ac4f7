"""One case on its device, as tests see it: runs that compare with ``==``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.compare import NotComparableError
from espdl_hil.errors import ConfigError
from espdl_hil.proof.ledger import CaseLedger
from espdl_hil.proof.observed import Control
from espdl_hil.proof.package import streaming_name
from espdl_hil.proof.run import Run, RunRole, VerificationError
from espdl_hil.quantize import NOT_JUDGED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.device.dut import Dut
    from espdl_hil.proof.accuracy import Kept
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.rows import RowBook
    from espdl_hil.simulator import Devkit


class Hil:
    """One case: a model at one width and chunk size, on one device.

    Tests get it as the fixture ``hil``. Runs are made when they are asked for, and kept: the
    device streams the stimulus once, however many tests compare it.

    Args:
        case: The row of the table.
        book: Where the row is noted; it knows the devices.

    Attributes:
        case: As given.
    """

    def __init__(self, case: Case, book: RowBook) -> None:
        self.case = case
        self._book = book
        self._rig = book.rig
        self._ledger = CaseLedger(case, book)

    # -- runs ----------------------------------------------------------------------

    def stream(
        self,
        *,
        order: Sequence[int] = (),
        reset: bool = True,
        after: int | None = None,
        artifact: bytes = b"",
        upload: bool = True,
        beside: Case | None = None,
    ) -> Run:
        """Stream the stimulus through the device, chunk by chunk.

        Without arguments this is the run that the proof is about. Each argument makes a control
        of it, which is run anew and counts for no number of the row.

        Args:
            order: Chunks by number, in the order in which they are sent, such as ``swapped(0, 1)``.
            reset: Zero the state before the stream.
            after: Chunks that the same model instance has streamed before; with ``reset=False``
                all, else none.
            artifact: Another build of the streaming model, such as ``flipped_weight()``.
            upload: Send *artifact* to the device; otherwise its flash must hold these very bytes.
            beside: Another case, whose model takes a step between any two steps of this one's.

        Raises:
            StaleArtifactError: flash holds other bytes than *artifact*.
            StreamingError: the model cannot stream.
            HarnessError: the run could not be made.
        """
        before = after if after is not None else 0 if reset else self.case.chunk_count
        return self._ledger.stream(Control(tuple(order), reset, before, artifact, upload, beside))

    def offline(self) -> Run:
        """Run the whole model over the whole stimulus, on the device.

        Raises:
            HarnessError: the run could not be made.
        """
        return self._ledger.offline()

    def interpreted(self) -> Run:
        """What the interpreter makes of the same bytes, offline and chunk by chunk."""
        return Run(RunRole.INTERPRETED, self.expected.stream, self._ledger)

    @property
    def has_reference(self) -> bool:
        """Whether there is the exporter's own execution; files from elsewhere have none."""
        return bool(self.expected.artifacts.reference)

    @property
    def has_float_model(self) -> bool:
        """Whether there is a float model to measure by; files from elsewhere need an ONNX file."""
        return bool(self.expected.artifacts.float_outputs)

    def reference(self) -> Run:
        """The exporter's own quantized execution of the whole model.

        Raises:
            ConfigError: the files come from elsewhere, and there is none.
        """
        if not self.has_reference:
            raise ConfigError(f"{self.case.id}: {NOT_JUDGED}", hint="ask hil.has_reference")
        return Run(RunRole.REFERENCE, [self.expected.artifacts.reference], self._ledger)

    def accuracy(self) -> Kept:
        """What the device's offline run keeps of the float model; true if it is enough.

        Raises:
            NotComparableError: an output is not finite.
            ConfigError: the files come from elsewhere, and there is no float model.
            HarnessError: the run could not be made.
        """
        if not self.has_float_model:
            raise ConfigError(f"{self.case.id}: {NOT_JUDGED}", hint="ask hil.has_float_model")
        return self._ledger.accuracy()

    def forget(self) -> None:
        """Forget the runs, so that the next are made anew; the row keeps what it has."""
        record = self._book.record(self.case)
        record.runs.clear()
        record.explained.clear()

    # -- the proof -------------------------------------------------------------------

    def verify(self) -> None:
        """Prove the case: stream against offline run, device against interpreter and reference.

        The offline run is measured by the float model, too.

        All comparisons are made, whatever the first one gives.

        Raises:
            VerificationError: an element differs, or too little is left of the float model; says
                where and why.
            NotComparableError: nothing differs, but something could not be compared.
            HarnessError: a run could not be made.
        """
        pairs = [(self.stream(), self.offline()), (self.stream(), self.interpreted())]
        if self.has_reference:
            pairs.append((self.offline(), self.reference()))
        differing, errors = [], []
        for left, right in pairs:
            try:
                if left != right:
                    differing.append(left.match(right))
            except NotComparableError as error:
                errors.append(error.message)
        lacking: list[str] = []
        try:
            lacking = self.accuracy().explain() if self.has_float_model else []
        except NotComparableError as error:
            errors.append(error.message)
        if errors:
            raise NotComparableError("\n".join(errors))
        if differing or lacking:
            lines = self._ledger.explain(*differing) if differing else []
            raise VerificationError("\n".join([*lines, *lacking]))

    # -- what controls are made of ------------------------------------------------------

    def swapped(self, first: int, second: int) -> list[int]:
        """Return the order of all chunks with two of them changed in place."""
        order = list(range(self.case.chunk_count))
        order[first], order[second] = order[second], order[first]
        return order

    def neighbour(self) -> Case:
        """Return a case of another model on this device; this case if there is no other."""
        others = (
            case
            for case in self._rig.cases
            if case.target == self.case.target and case.model.name != self.case.model.name
        )
        return next(others, self.case)

    def flipped_weight(self) -> bytes:
        """Return the streaming file with one bit of one weight flipped, so that outputs change.

        Raises:
            ConfigError: no weight of the model changes any output of its stimulus.
        """
        return self.expected.flipped_weight()

    # -- what is underneath ----------------------------------------------------------------

    @property
    def expected(self) -> Expected:
        """What the device should give, computed on the host: chunks, plan, files, outputs."""
        return self._ledger.expected

    @property
    def dut(self) -> Dut:
        """The device, flashed and booted."""
        return self._rig.dut(self.case.target)

    @property
    def is_in_flash(self) -> bool:
        """Whether the streaming model lies in the device's flash, as ``--hil-model-store`` says."""
        return streaming_name(self.case) in self.dut.stored

    @property
    def devkit(self) -> Devkit:
        """The simulated devkit behind the device, to inject faults into.

        Raises:
            ConfigError: the device is a board, or simulated elsewhere.
        """
        devkit = self._rig.devkits.get(self.case.target)
        if devkit is None:
            raise ConfigError(
                f"{self.case.id}: there is no simulated devkit in this process",
                hint="faults can be injected with --hil-device sim and without --port",
            )
        return devkit
