"""A process that exports small networks, and the client that asks it.

esp-ppq and torch stay in the process: they are slow to import, they warn and print, and
esp-ppq keeps state. Requests and answers are pickled, one at a time, over pipes.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from espdl_hil.errors import HarnessError

HERE = Path(__file__).parent


@dataclass
class Request:
    """One network, and what to export of it.

    Attributes:
        network: Name of a class of ``faulty_networks.py``, or a specification for ``randomnet.py``.
        shapes: Input shapes in the module's own layout.
        axes: Time axis of each input; None for a recurrent state.
        chunks: Chunk frames of the first input; one planned streaming file each.
        target: ESP-DL target.
        bits: 8 or 16.
        auto: Also run the exporter's own conversion at these chunk sizes.
        state: Pairs of input and output position.
        options: Passed on to the exporter's own conversion: ``table`` entries
            ``(consumer node, window, frame axis, only for this consumer)``, ``test_values``,
            and ``leak``, a table that an export which fails leaves behind.
    """

    network: object
    shapes: list
    axes: list
    chunks: list = field(default_factory=list)
    target: str = "esp32s3"
    bits: int = 8
    auto: list = field(default_factory=list)
    state: list = field(default_factory=list)
    options: dict = field(default_factory=dict)


@dataclass
class Exported:
    """What came of a request.

    Attributes:
        offline: Bytes of the offline file.
        streaming: Bytes of each planned streaming file by chunk frames.
        plans: Their plans as JSON.
        refused: The refusal instead, pickled by its parts (rule, node, message).
        auto: Bytes of the exporter's own conversions.
        findings: Of each planned streaming file as JSON, by the analysis of the exporter's graph.
        auto_findings: Likewise, of the exporter's own conversions.
        axes: Time axis of each graph input in the file's layout.
        state: Graph input to graph output.
    """

    offline: bytes = b""
    streaming: dict = field(default_factory=dict)
    plans: dict = field(default_factory=dict)
    refused: dict = field(default_factory=dict)
    auto: dict = field(default_factory=dict)
    findings: dict = field(default_factory=dict)
    auto_findings: dict = field(default_factory=dict)
    axes: dict = field(default_factory=dict)
    state: dict = field(default_factory=dict)


class Exporter:
    """The process, started when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, request: Request) -> Exported:
        """Export one network.

        Raises:
            HarnessError: the process failed; the message is its traceback.
        """
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "exporter_process.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        send(self._process.stdin, request)
        answer = receive(self._process.stdout)
        if isinstance(answer, str):
            raise HarnessError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process.stdout.close()


def send(pipe, value) -> None:
    """Write one pickled value."""
    data = pickle.dumps(value)
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def receive(pipe):
    """Read one pickled value; None at the end."""
    head = pipe.read(8)
    if len(head) < 8:
        return None
    return pickle.loads(pipe.read(struct.unpack("<Q", head)[0]))
