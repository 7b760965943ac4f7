"""The proof in one call, for scripts and notebooks."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError, HarnessError, StreamingError
from espdl_hil.model import StreamingModel, load_model
from espdl_hil.proof.case import cross
from espdl_hil.proof.declared import find_differences
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.outlets import export
from espdl_hil.proof.ready import make_ready
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.run import VerificationError
from espdl_hil.proof.settings import SERIAL, SIM, Settings, default_targets
from espdl_hil.report import start_report, write_report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

    from espdl_hil.proof.case import Case
    from espdl_hil.report import Results, Row

FOLDER = Path("hil-report")


@dataclass(frozen=True)
class Verification:
    """What ``verify`` found.

    Attributes:
        results: Rows, devices and all that ``results.json`` keeps.
        explanations: Why a row did not pass, by its id.
        report: Path of ``results.json``; ``report.html`` lies beside it.
    """

    results: Results
    explanations: dict[str, str]
    report: Path

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row for each target, width and chunk size."""
        return self.results.rows

    @property
    def passed(self) -> bool:
        """Whether there are rows and every one of them passed."""
        return bool(self.rows) and all(row.outcome is Outcome.PASSED for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        """The table, and what is behind each row that did not pass."""
        from rich.console import Console

        from espdl_hil.report import render_table

        text = io.StringIO()
        render_table(self.results, Console(file=text, width=120, no_color=True))
        return "\n\n".join([text.getvalue().rstrip(), *self.explanations.values()])

    __repr__ = __str__


def verify(
    model: StreamingModel | Path | str,
    target: str | Iterable[str] | None = None,
    *,
    bits: int | Iterable[int] | None = None,
    chunk_frames: int | Iterable[int] | None = None,
    port: str | None = None,
    device: str | None = None,
    report: Path | str = FOLDER,
    store: Path | None = None,
    history: Path | str | None = None,
    app: str | None = None,
) -> Verification:
    """Prove a model: each streaming chunk equals what the whole model gives, on the device.

    The same proof as the fixture's ``hil.verify()``, without pytest. Everything is closed when it
    returns.

    Args:
        model: A model file, or the object ``MODEL`` of one. Of that object ``bits``,
            ``chunk_frames``, ``seed``, ``quantization``, a ``streaming`` that is text, ``targets``
            and what is judged (tolerances, ``min_sqnr_db``, ``metric``) may have been replaced.
        target: ESP-IDF target or targets; None means all that the model declares.
        bits: Widths; None means all that the model declares.
        chunk_frames: Chunk sizes; None means all that the model declares.
        port: Port of the board; needs one *target*.
        device: ``sim`` (a simulated devkit, the default without *port*), ``serial`` (a board),
            ``qemu`` or ``espemu`` (the firmware in an emulator).
        report: Folder of the report; what an earlier run left there is removed.
        store: Folder of the artifact store; None means the user's cache.
        history: File that the run is appended to, as by ``--hil-history``; None for none.
        app: App to flash instead of this project's firmware: an ESP-IDF project that includes
            `hil_serve`, or a finished build of one.

    Returns:
        Rows and explanations; ``str()`` is a table.

    Raises:
        ConfigError: the model, the board or an argument is not as it has to be.
        DeviceError: a board does not answer.
    """
    device = device or (SERIAL if port else SIM)
    targets = _listed(target) or default_targets(device)
    declared = _with_source(model)
    chunks = _listed(chunk_frames) or declared.chunk_frames
    known = set(chunks) <= set(declared.chunk_frames)  # then its artifacts are those of pytest
    wanted = replace(
        declared,
        bits=_listed(bits) or declared.bits,
        chunk_frames=declared.chunk_frames if known else chunks,
    )
    settings = Settings(
        device=device,
        targets=targets,
        ports=_ports(port, targets),
        report=Path(report),
        store=store,
        history=Path(history) if history else None,
        app=app,
    )
    cases = [case for case in cross([wanted], targets) if case.chunk_frames in chunks]
    start_report(settings.report)
    rig = Rig(settings, cases)
    book = RowBook(rig, command=f"espdl_hil.verify({declared.name!r})")
    with contextlib.closing(rig):
        rig.find_ports()
        make_ready(rig, sys.stderr)
        explanations = {case.id: text for case in cases if (text := prove(case, book))}
        results = book.results
    written = write_report(results, settings.report)
    for line in export(results, settings):
        print(line, file=sys.stderr)
    return Verification(results, explanations, written)


def prove(case: Case, book: RowBook) -> str:
    """Prove one case; returns why it did not pass, else nothing."""
    try:
        Hil(case, book).verify()
    except VerificationError as error:
        book.note_outcome(case, Outcome.FAILED, "")
        return str(error)
    except HarnessError as error:
        outcome = Outcome.FAILED if isinstance(error, StreamingError) else Outcome.ERROR
        book.note_outcome(case, outcome, str(error))
        return f"{case.id}: {error}"
    return ""


def _listed(values: Any) -> tuple[Any, ...]:
    """One value or several; none for None."""
    if values is None:
        return ()
    return (values,) if isinstance(values, str | int) else tuple(values)


def _ports(port: str | None, targets: tuple[str, ...]) -> dict[str, str]:
    if port is None:
        return {}
    if len(targets) != 1:
        raise ConfigError("port= needs one target=: say which chip is behind the port")
    return {targets[0]: port}


def _with_source(model: StreamingModel | Path | str) -> StreamingModel:
    """The model together with the file that declares it, which the quantize worker runs again.

    Raises:
        ConfigError: there is no such file, it declares another model, or it is being run now.
    """
    if _loading():
        raise ConfigError(
            "verify() is called while its model file is being loaded",
            hint='put the call under: if __name__ == "__main__":',
        )
    if not isinstance(model, StreamingModel):
        return load_model(model)
    code = getattr(model.build, "__code__", None)
    source = model.source or (Path(code.co_filename) if code else None)
    if source is None or not (model.source or source.is_file()):
        raise ConfigError(
            f"model {model.name!r} was defined in a notebook or an interactive session: there is "
            "no file that the quantize worker could run again",
            hint="write it to a file (%%writefile mine.py in a notebook) and call "
            'verify("mine.py")',
        )
    declared = load_model(source)
    differing = next(find_differences(model, declared), None)
    if differing is not None:
        raise ConfigError(
            f"model {model.name!r} is not the MODEL of {source}: {differing} differs",
            hint="give each model a file of its own, with one MODEL",
        )
    return replace(model, source=declared.source)


def _loading() -> bool:
    """Whether a model file is being run, in this process or in a quantize worker."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - CPython documents it
    while frame is not None:
        if frame.f_code is load_model.__code__:
            return True
        frame = frame.f_back
    return False
