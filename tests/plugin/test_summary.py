"""What a row gives to JUnit, and what is written besides its report."""

import execnet
import pytest

from espdl_hil.compare import FirstDifference, Outcome
from espdl_hil.plugin.summary import export, properties
from espdl_hil.proof.settings import Settings
from espdl_hil.report import Accuracy, Check, Device, History, Latency, Resources, Results, Row

FIRST = FirstDifference(0, 1, 2, 3, 4)
DEVICE = Device("esp32s3", "silicon", "ESP32-S3", 2, "/dev/ttyUSB0", "ab", "1")
ROW = Row(
    *("esp32s3-tcn-int8-chunk3", "esp32s3", "tcn", 8, 3, "silicon", Outcome.FAILED),
    checks={"streaming": Check(Outcome.FAILED, 8, 8, 2, 1, None, FIRST, "exact", "why")},
    accuracy=Accuracy(Outcome.PASSED, 31.0, 30.0, 10.0, {"y": 31.0}),
    sqnr_db=31.0,
    latency_us=Latency(10.0, 11.0, 12.0, 12.0),
    resources=Resources(240, 5000, 900000, 81000, 1000, 20000, 300000, None, 9000),
    artifacts={"app": "ab"},
)
RESULTS = Results("2026-11-25T12:00:00+00:00", devices=(DEVICE,), rows=(ROW,))


def test_every_figure_is_a_property_that_a_worker_can_send():
    told = dict(properties(ROW))
    execnet.dumps(list(told.items()))
    assert told["substrate"] == "silicon"
    assert told["cause"] == "not diagnosed"
    assert (told["streaming_differing"], told["streaming_max_lsb"]) == (2, 1)
    assert (told["sqnr_db"], told["accuracy_min_sqnr_db"]) == (31.0, 10.0)
    assert (told["latency_us_median"], told["latency_us_max"]) == (10.0, 12.0)
    assert (told["latency_cycles_p99"], told["internal_peak_bytes"]) == (2880, 300000)
    assert "psram_peak_bytes" not in told  # the firmware does not know it
    assert told["sha256_app"] == "ab"
    emulated = Row("a", "esp32s3", "m", 8, 3, "emulated", Outcome.ERROR, emulator="QEMU 9")
    told = dict(properties(emulated))
    assert (told["substrate"], told["emulator"]) == ("emulated", "QEMU 9")
    assert not any(name.startswith("latency") for name in told)


def test_all_that_is_asked_for_is_written(tmp_path):
    settings = Settings(
        history=tmp_path / "h",
        summary=tmp_path / "s.md",
        metrics=tmp_path / "m.txt",
        node_data=tmp_path / "nodes",
    )
    assert export(RESULTS, settings) == [f"history: run 1 in {tmp_path / 'h'}"]
    assert "Against the run before" not in settings.summary.read_text()
    assert export(RESULTS, settings) == [f"history: run 2 in {tmp_path / 'h'}"]
    assert "Against the run before: no difference" in settings.summary.read_text()
    assert settings.metrics.read_text().endswith("# EOF\n")
    assert settings.node_data.is_dir()
    with History(tmp_path / "h") as history:
        assert len(history.runs(9)) == 2


def test_the_summary_of_a_github_step_is_added_to(tmp_path, monkeypatch):
    file = tmp_path / "s.md"
    file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    export(RESULTS, Settings(summary=file))
    assert file.read_text().startswith("before\n## ")


@pytest.mark.parametrize("what", ["history", "summary", "metrics", "node_data"])
def test_what_cannot_be_written_is_said_and_no_more(tmp_path, what):
    (tmp_path / "taken").write_text("")
    (line,) = export(RESULTS, Settings(**{what: tmp_path / "taken" / "file"}))
    assert line.startswith("the history is not kept: " if what == "history" else "not written: ")
