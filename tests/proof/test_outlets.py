"""What is written besides a report."""

from dataclasses import replace

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.proof.outlets import export
from espdl_hil.proof.settings import Settings
from espdl_hil.report import Details, Device, History, Results, Row

DEVICE = Device("esp32s3", "silicon", "ESP32-S3", 2, "/dev/ttyUSB0", "ab", "1")
ROW = Row("esp32s3-tcn-int8-chunk3", "esp32s3", "tcn", 8, 3, "silicon", Outcome.FAILED)
ROW = replace(ROW, details=Details(error="refused"))
RESULTS = Results("2026-11-25T12:00:00+00:00", devices=(DEVICE,), rows=(ROW,))


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
