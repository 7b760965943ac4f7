"""The history loses nothing, whoever writes to it and however it ends."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError
from espdl_hil.report import Details, History, Latency, render_history, trends
from espdl_hil.report.row import Resources

from .conftest import one_element
from .test_html import Page

WRITER = """
import itertools, json, sys
from pathlib import Path
from espdl_hil.report import History, Results
results = Results.from_json(json.loads(Path(sys.argv[1]).read_text()))
with History(Path(sys.argv[2])) as history:
    for number in itertools.count() if sys.argv[3] == "-" else range(int(sys.argv[3])):
        run = history.append(results)
        print(run, flush=True)
"""


@pytest.fixture
def writer(results, tmp_path):
    import json

    file = tmp_path / "one.json"
    file.write_text(json.dumps(results.to_json()))

    def start(count):
        command = [sys.executable, "-c", WRITER, str(file), str(tmp_path / "history"), str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize("total", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_four_processes_at_once_lose_no_run(writer, tmp_path, total):
    writers = [writer(total // 4) for _ in range(4)]
    numbers = [int(line) for found in writers for line in found.communicate()[0].split()]
    assert [found.returncode for found in writers] == [0] * 4
    assert sorted(numbers) == list(range(1, total + 1))
    with History(tmp_path / "history") as history:
        assert len(history.runs(total + 1)) == total
        assert {run["total"] for run in history.runs(total)} == {3}
        assert history.run(total).rows[1].id == "esp32s3-tcn-int16-chunk3"


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_writer_that_is_killed_loses_only_what_it_had_not_said(writer, tmp_path, times):
    said = []
    for attempt in range(times):
        process = writer("-")
        said += [int(process.stdout.readline()) for _ in range(5 + attempt)]
        process.send_signal(signal.SIGKILL)
        said += [int(line) for line in process.stdout.read().split() if line.isdecimal()]
        process.wait()
        process.stdout.close()
        with History(tmp_path / "history") as history:
            assert history.set_aside is None
            known = [run["id"] for run in history.runs(10**6)]
        assert set(said) <= set(known)
        assert known == list(range(1, len(known) + 1))


@pytest.mark.parametrize("garbage", [b"no database, but long enough to be looked at" * 40, None])
def test_a_damaged_file_is_set_aside_and_said(results, tmp_path, garbage):
    file = tmp_path / "history"
    with History(file) as history:
        for _ in range(40):
            history.append(results)
    data = file.read_bytes()
    file.write_bytes(garbage or data[:4096] + os.urandom(len(data) - 4096))
    with History(file) as history:
        assert history.set_aside == tmp_path / "history.damaged-1"
        assert history.set_aside.exists()
        assert history.append(results) == 1
    with History(file) as history:
        assert history.set_aside is None
        assert len(history.runs(9)) == 1


def test_a_newer_file_is_left_alone(tmp_path):
    file = tmp_path / "history"
    with sqlite3.connect(file) as made:
        made.execute("PRAGMA user_version = 99")
    made.close()
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="is of version 99, this release knows 2"):
        History(file)
    assert file.read_bytes() == before


def test_an_older_file_is_extended_and_keeps_its_runs(results, tmp_path):
    file = tmp_path / "history"
    with History(file) as history:
        history.append(results)
    with sqlite3.connect(file) as older:
        older.execute("ALTER TABLE rows DROP COLUMN internal_peak_bytes")
        older.execute("ALTER TABLE rows DROP COLUMN psram_peak_bytes")
        older.execute("PRAGMA user_version = 1")
    older.close()
    for number in (2, 3):
        with History(file) as history:
            assert history.set_aside is None
            assert history.append(results) == number
            assert [run["total"] for run in history.runs(9)] == [3] * number


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match=r"(?s)taken/history cannot be opened: .*--hil-history"):
        History(tmp_path / "taken" / "history")


def test_a_run_comes_back_without_its_pictures(results, make_row, tmp_path):
    drawn = make_row(details=Details(pictures={"comparisons": []}, notes=("kept",)))
    with History(tmp_path / "history") as history:
        number = history.append(replace(results, rows=(drawn,)))
        (row,) = history.run(number).rows
        assert row.details == Details(notes=("kept",), alignment=())
        assert row.checks["streaming"].compared == 60
        with pytest.raises(ConfigError, match="has no run 9"):
            history.run(9)


def test_the_run_before_has_each_row_as_it_was_last(results, tmp_path):
    first, second, _ = results.rows
    with History(tmp_path / "history") as history:
        assert history.before(results) is None
        history.append(results)
        history.append(replace(results, rows=(replace(second, sqnr_db=7.0),)))
        before = history.before(replace(results, rows=(first, second)))
    assert {row.id: row.sqnr_db for row in before.rows} == {
        first.id: first.sqnr_db,
        second.id: 7.0,
    }


@pytest.fixture
def told(make_row, make_results, tmp_path):
    """Trends of a row whose figures change as *runs* say."""

    def tell(*runs):
        with History(tmp_path / "history") as history:
            for number, fields in enumerate(runs):
                fields = dict(fields)
                environment = fields.pop("environment", {})
                made = make_results(make_row(**fields), environment=environment)
                history.append(replace(made, date=f"2026-11-{number % 28 + 1:02}T12:00:00+00:00"))
            return trends(history.rows("tcn", 1000))

    return tell


def test_the_first_run_with_a_change_and_what_changed_along(told):
    (trend,) = told(
        {"sqnr_db": 31.0, "environment": {"esp-ppq": "1.3.11"}},
        {"sqnr_db": 31.0, "environment": {"esp-ppq": "1.3.11"}},
        {"sqnr_db": 30.2, "environment": {"esp-ppq": "1.3.12"}, "artifacts": {"chunk3.espdl": "b"}},
        {"sqnr_db": 30.2, "environment": {"esp-ppq": "1.3.12"}, "artifacts": {"chunk3.espdl": "b"}},
    )
    assert [str(event) for event in trend.events] == [
        "run 3, 2026-11-03: SQNR 31.00 → 30.20 dB; with it: esp-ppq 1.3.11 → 1.3.12, "
        "file chunk3.espdl"
    ]
    assert (trend.runs, trend.flakes) == ((1, 2, 3, 4), ())


def test_time_and_memory_have_trends_on_silicon(told):
    def row(median_us, internal):
        taken = Resources(240, 5000, 900000, 81000, 1000, 20000, internal, 71_680, 9000)
        figures = {"latency_us": Latency(median_us, 900, 900, 900), "resources": taken}
        return {"substrate": "silicon", "sqnr_db": 31.0, **figures}

    (trend,) = told(row(800, 40_960), row(815, 41_860), row(832, 43_008))
    assert trend.memory == {"internal RAM": (40_960, 41_860, 43_008), "PSRAM": (71_680,) * 3}
    assert [event.what for event in trend.events] == [
        ("time of a chunk 815 → 832 µs", "internal RAM 41,860 → 43,008 bytes")
    ]
    text = render_history("tcn", [trend])
    last = {"SQNR, dB": 31, "µs a chunk": 832, "internal RAM, KiB": 42, "PSRAM, KiB": 70}
    for figure, value in last.items():
        assert f'aria-label="{figure}, of {trend.id} over its runs, {value:.1f} now"' in text


def test_a_flake_is_a_failure_of_files_that_also_pass(told):
    bad = {"spoil": one_element}
    (trend,) = told({}, bad, *[{}] * 18, {**bad, "artifacts": {"chunk3.espdl": "other"}})
    (flakes,) = trend.flakes
    assert (flakes.board, flakes.failed, flakes.runs) == ("simulated", 1, 20)
    low, high = flakes.interval
    assert (round(low, 4), round(high, 4)) == (0.0089, 0.2361)  # Wilson, 1 of 20
    assert "1 of 20 runs of the same files on simulated did not pass: 5.00%" in str(flakes)
    assert trend.events[0].along == ()


def test_a_page_of_a_thousand_runs_is_made_within_two_seconds(results, tmp_path):
    with History(tmp_path / "history") as history:
        history.append(results)
        (row,) = [row for row in history.rows("tcn", 9) if row["bits"] == 8]
    rows = [{**row, "run": n + 1, "sqnr_db": 30 + n % 7 / 10} for n in range(1000)]
    start_s = time.process_time()
    text = render_history("tcn", trends(rows))
    assert time.process_time() - start_s < 2
    page = Page(text)
    assert "tcn over 1000 runs" in page.text
    assert "and 949 before them" in page.text


def test_a_page_says_what_flakes(told):
    text = Page(render_history("tcn", told({}, {"outcome": Outcome.FAILED}))).text
    assert "1 of 2 runs of the same files on simulated did not pass: 50.00%" in text
    assert "run 2, 2026-11-02: outcome passed → failed" in text
