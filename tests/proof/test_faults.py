"""Faults in the middle of a run: the right outcome, its cause, soon, and a bench to go on with.

Those of before the first write are in ``test_boards.py``.
"""

import contextlib
import re
import time

import pytest

from espdl_hil.device import board as board_module
from espdl_hil.device import stream as stream_module
from espdl_hil.device.bench import BenchBoard
from espdl_hil.device.errors import (
    CrashError,
    RequestError,
    StaleArtifactError,
    TransportError,
    is_retryable,
)
from espdl_hil.device.service_record import clear, read_record
from espdl_hil.device.stream import Stream
from espdl_hil.device.timing import Timing
from espdl_hil.errors import BusyError, DeviceError
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.settings import Settings
from espdl_hil.simulator import Devkit
from espdl_hil.simulator.faults import Panic, SilentPort

MAC = "7c:df:a1:00:44:01"
AT_MOST_S = 20.0
REPLY_AND_A_HALF = 100  # bytes; a reply to a chunk has 66 here
SCALE = 0.25  # of all deadlines
SAVED_S = 3 * (1 - SCALE) * Timing().quiet_s  # by that: a silent device is waited for three times


class Lab:
    """A bench of one simulated devkit."""

    def __init__(self, case, artifacts, report):
        self._case, self._artifacts, self._report = case, artifacts, report
        self.kit = Devkit("esp32s3", mac=MAC)
        self.told = []

    @property
    def board(self):
        url = f"rfc2217://127.0.0.1:{self.port}"
        return BenchBoard(
            "s3-1", "esp32s3", url, mac=MAC, firmware="simulated", bench=str(self._report)
        )

    def power(self, *, on):
        if on:
            self.kit.__enter__()
            self.port = self.kit.port
        else:
            self.kit.__exit__(None, None, None)

    @contextlib.contextmanager
    def run(self):
        """A run of its own: claims, looks, flashes, boots; the proof of its one row."""
        settings = Settings(
            device="serial", boards=(self.board,), report=self._report, time_scale=SCALE
        )
        rig = Rig(settings, [self._case], tell=self.told.append)
        rig._results = self._artifacts  # made once for all
        with contextlib.closing(rig):
            rig.find_ports()
            rig.bring_up()
            self.rig = rig
            yield Hil(self._case, RowBook(rig, command="pytest"))

    def goes_on(self):
        """A run after the fault is green."""
        with self.run() as hil:
            hil.verify()


@pytest.fixture
def lab(case, rig, tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "locks"))
    made = Lab(case, rig._results, tmp_path)
    made.power(on=True)
    yield made
    made.power(on=False)


@pytest.fixture
def once_streaming(monkeypatch):
    """Does something when the next streams have started, before their first chunk is sent."""

    def arrange(act, times=1):
        acts = [act] * times
        run = Stream.run

        def act_and_run(stream, blocks, progress=None):
            if len(blocks) > 1 and acts:
                acts.pop()()
            return run(stream, blocks, progress)

        monkeypatch.setattr(Stream, "run", act_and_run)
        monkeypatch.setattr(stream_module, "MAX_STEPS", 1)  # a packet, so that each has a reply

    return arrange


@contextlib.contextmanager
def soon():
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < AT_MOST_S - SAVED_S


def test_a_port_that_falls_silent(lab, once_streaming):
    once_streaming(lambda: lab.kit.inject(SilentPort(after_bytes=REPLY_AND_A_HALF)))
    with lab.run() as hil:
        with soon(), pytest.raises(TransportError) as caught:
            hil.stream()
        cause = "chunk 1: the port is silent: not a byte came within 1 s of Chunk"
        assert cause in str(caught.value)
        with pytest.raises(DeviceError) as caught:
            hil.offline()
        assert re.search(
            f"not tried again, .*{cause}.*; nothing helped, at last: ", str(caught.value)
        )
        actions = [(step.action, step.outcome == "recovered") for step in lab.rig.incidents]
        assert actions == [("soft reset", False), ("EN reset", False), ("reflash", False)]
    with pytest.raises(BusyError, match="s3-1 is out of service: it did not come back"):
        lab.goes_on()
    lab.kit.clear()
    assert cause in clear(lab.board.identity)
    lab.goes_on()


def test_a_port_that_vanishes(lab, once_streaming, monkeypatch):
    monkeypatch.setattr(board_module, "REAPPEAR_S", board_module.REAPPEAR_S * SCALE)
    once_streaming(lambda: lab.power(on=False))
    with lab.run() as hil:
        with soon(), pytest.raises(TransportError, match=r"chunk 0: the port failed: .*lost"):
            hil.stream()
        assert "the port did not come back" in lab.rig.incidents[-1].outcome
    lab.kit = Devkit("esp32s3", mac=MAC, port=lab.port)
    lab.power(on=True)
    clear(lab.board.identity)
    lab.goes_on()


def test_a_panic_at_a_chunk(lab, once_streaming):
    once_streaming(lambda: lab.kit.inject(Panic(after_bytes=REPLY_AND_A_HALF)))
    with lab.run() as hil:
        with soon():
            hil.verify()  # the run was made once more
        (incident,) = lab.rig.incidents
        assert (incident.action, incident.outcome) == ("soft reset", "recovered")
        assert "chunk 1: the device crashed: core 0 panicked: LoadProhib" in incident.reason
    assert read_record(lab.board.identity).count(1.0) == 1
    lab.goes_on()


def test_a_panic_at_every_attempt(lab, once_streaming):
    once_streaming(lambda: lab.kit.inject(Panic(after_bytes=REPLY_AND_A_HALF)), times=2)
    with (
        lab.run() as hil,
        soon(),
        pytest.raises(CrashError, match="chunk 1: the device crashed: core 0 panicked"),
    ):
        hil.stream()
    lab.goes_on()


def test_a_stale_model(lab):
    """Other bytes in flash than this run has written: by another program, or worn."""
    with lab.run() as hil:
        image = lab.kit.flash.read(0, 1 << 22)
        at = image.rindex(b"EDL2") + 2000
        bit = next(b for b in range(8) if image[at] >> b & 1)
        lab.kit.flash.program(at, bytes([image[at] & ~(1 << bit)]))
        hil.dut.reset()
        with soon(), pytest.raises((StaleArtifactError, RequestError)) as caught:
            hil.stream()
        assert not is_retryable(caught.value)
        assert re.search("BAD_PACKAGE|loaded bytes with hash", str(caught.value))
        assert lab.rig.incidents == ()
    lab.goes_on()  # what is in flash is compared, not believed
