"""What a model takes of a chip: measured on silicon, and nowhere else."""

import contextlib

import pytest

from espdl_hil.device.session import Session
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.settings import Settings
from espdl_hil.simulator.core import Core
from espdl_hil.wire.messages import QueryUsageReply


@pytest.fixture
def chip_row(case, rig, tmp_path, monkeypatch):
    """Streams on a devkit that does not say that it is simulated; returns its row."""
    config = Core._config

    def unsaid(core, *arguments):
        said = config(core, *arguments)
        return said | {"flags": said["flags"] & ~core._api.HIL_FLAG_SIMULATED}

    monkeypatch.setattr(Core, "_config", unsaid)
    made = Rig(Settings(report=tmp_path), [case])
    made._results = rig._results
    with contextlib.closing(made):
        made.find_ports()
        made.build()
        made.bring_up()

        def stream():
            book = RowBook(made, command="pytest")
            assert Hil(case, book).stream() == Hil(case, book).offline()
            return book.row(case)

        stream.heap = made.dut(case.target).info.memory
        yield stream


def test_a_chip_tells_what_a_model_takes_of_it(chip_row, monkeypatch):
    heap = chip_row.heap
    least = QueryUsageReply(
        load_us=81000,
        internal_least=heap.internal_total - 5000,
        psram_least=heap.psram_total - 70000,
        stack_least=9000,
    )
    monkeypatch.setattr(Session, "usage", lambda session: least)
    row = chip_row()
    taken = row.resources
    assert (row.substrate, taken.cpu_mhz) == ("silicon", 240)
    assert taken.load_us == 81000
    assert (taken.internal_peak_bytes, taken.psram_peak_bytes) == (5000, 70000)
    assert taken.stack_free_bytes == 9000
    assert taken.model_bytes > 1000
    assert taken.app_bytes > 1000


def test_what_the_firmware_does_not_know_is_null(chip_row):
    taken = chip_row().resources  # the simulated core answers zeros
    assert (taken.load_us, taken.internal_peak_bytes, taken.stack_free_bytes) == (None, None, None)


def test_a_simulated_devkit_has_no_such_figures(proof, book, case):
    assert proof.stream() == proof.offline()
    assert book.row(case).resources is None
    assert book.row(case).to_json()["latency_cycles"] is None
