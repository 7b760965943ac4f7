"""Where models are kept: in flash, in memory, and what of it is written."""

from dataclasses import replace

import pytest

from espdl_hil.device.dut import Dut
from espdl_hil.device.errors import RequestError
from espdl_hil.espdl import write_package
from espdl_hil.simulator.runner import ModelRunner


def test_what_lies_in_flash_is_not_written_again(config, package):
    with Dut(config, models=package) as dut:
        assert (dut.flashed_bytes, dut.uploaded_bytes) == (0, 0)
        dut.session.load("streaming")
        assert dut.stored == {"streaming", "offline"}
        assert dut.flash(write_package([])) is True  # the twin: another package
        assert dut.flashed_bytes > 0


def test_of_a_flash_that_is_kept_only_what_is_meant_is_used(config, streaming, offline, package):
    new = offline.model  # under a name that flash has other bytes for
    wanted = write_package([("streaming", new), ("offline", offline.model), ("new", new)])
    with Dut(replace(config, keep_flash=True), models=wanted) as dut:
        assert dut.stored == {"offline"}
        dut.session.upload(new, "new")
        assert (dut.flashed_bytes, dut.uploaded_bytes) == (0, len(new))
        dut.recover("on purpose")
        assert dut.uploaded_bytes == len(new)
    with Dut(config, models=package) as dut:  # what lay there is there still
        assert dut.flashed_bytes == 0


def test_what_does_not_fit_memory_is_flashed_after_all(config, package, streaming, monkeypatch):
    memory = ModelRunner.memory
    monkeypatch.setattr(
        ModelRunner, "memory", lambda self: memory(self) | {"psram_largest": len(package)}
    )
    with Dut(replace(config, keep_flash=True), models=package) as dut:
        assert dut.flashed_bytes == 0  # each is less than half of what is free
    monkeypatch.setattr(ModelRunner, "memory", lambda self: memory(self) | {"psram_largest": 1000})
    other = write_package([("other", streaming.model)])
    with Dut(replace(config, keep_flash=True), models=other) as dut:
        assert dut.stored == {"other"}
        assert dut.flashed_bytes == len(other)


def test_a_model_without_room_says_where_to_keep_it(config):
    size = 9 << 20  # the devkit has 8 MiB
    model = b"EDL2" + bytes(4) + size.to_bytes(4, "little") + bytes(4) + bytes(size)
    with Dut(config) as dut, pytest.raises(RequestError) as caught:
        dut.session.upload(model)
    assert caught.value.code == "TOO_LARGE"
    assert "--hil-model-store flash" in str(caught.value)
