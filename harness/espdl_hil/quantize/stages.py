"""The stages of a worker: each is timed, and what the exporter logged in it is judged."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from espdl_hil.errors import QuantizeError
from espdl_hil.quantize.log_rules import LogLine, Meaning, classify
from espdl_hil.quantize.worker_result import STAGE_MARK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Stages:
    """What a worker has gone through so far.

    Args:
        log: The file that this process's standard output and error go to.

    Attributes:
        current: The stage that is running, or ran last.
        seconds: Duration of each stage that is complete, by name.
        lines: What the exporter logged in them.
    """

    def __init__(self, log: Path) -> None:
        self.current = "build"
        self.seconds: dict[str, float] = {}
        self.lines: list[LogLine] = []
        self._log = log
        self._log_bytes = 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run one stage: time it, then judge what the exporter logged meanwhile.

        Raises:
            QuantizeError: a line says that the artifact is wrong.
        """
        self.current = name
        print(f"{STAGE_MARK}{name}", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 4)
        found = self.new_lines()
        self.lines += found
        fatal = [line for line in found if line.meaning is Meaning.FATAL]
        if fatal:
            raise QuantizeError(
                f"the exporter logged an error and went on: {fatal[0].text} [{fatal[0].rule}]",
                stage=name,
            )

    def new_lines(self) -> list[LogLine]:
        """Return what the exporter has logged as warning or error since the last call."""
        sys.stdout.flush()
        sys.stderr.flush()
        with self._log.open("rb") as file:
            file.seek(self._log_bytes)
            text = file.read()
        self._log_bytes += len(text)
        return classify(text.decode(errors="replace").splitlines(), self.current)
