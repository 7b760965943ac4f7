import copy
import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from espdl_hil.compare import EXACT, Outcome, compare_streams
from espdl_hil.errors import ConfigError
from espdl_hil.report import (
    Allowance,
    Check,
    Details,
    Device,
    Incident,
    Latency,
    Resources,
    Results,
    ResultsError,
    Row,
    clear_logs,
    commit_of,
    render_metrics,
    start_report,
    validate_results,
    worse,
    worst,
    write_report,
)

from .conftest import DATE, compare, one_element

# The schema's own lists, written out: a field that is lost must be noticed.
# fmt: off
RUN_FIELDS = [
    "schema", "date", "duration_s", "command", "commit", "environment", "devices", "incidents",
    "written", "rows",
]
ROW_FIELDS = [
    "id", "target", "model", "bits", "chunk_frames", "substrate", "outcome", "chunks",
    "frames", "checks", "sqnr_db", "cosine", "quantization", "emulator", "board",
    "real_time_factor", "latency_cycles", "resources", "latency_us", "artifacts", "outputs",
    "diagnosis", "details",
]
CHECK_FIELDS = [
    "outcome", "elements", "compared", "differing", "max_lsb", "max_relative", "first",
    "tolerance", "error",
]
# fmt: on


def test_what_is_written_is_what_is_validated(results, tmp_path):
    path = write_report(results, tmp_path / "deep" / "hil-report")
    assert path == tmp_path / "deep" / "hil-report" / "results.json"
    content = json.loads(path.read_text())
    validate_results(content)
    assert list(content) == RUN_FIELDS
    assert content["schema"] == 2
    assert sorted(content["rows"][0]) == sorted(ROW_FIELDS)
    assert sorted(content["rows"][0]["checks"]["streaming"]) == sorted(CHECK_FIELDS)
    assert content["rows"][0]["checks"]["reference"] is None
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "results.json"]


def test_rows_say_what_the_checks_say(results):
    passed, failed, error = results.to_json()["rows"]
    assert (passed["outcome"], passed["latency_us"]) == ("passed", None)
    assert passed["sqnr_db"] == pytest.approx(40)
    check = passed["checks"]["streaming"]
    assert (check["elements"], check["compared"], check["differing"]) == (60, 60, 0)
    assert (check["first"], check["max_lsb"], check["tolerance"]) == (None, 0, "exact")
    assert failed["outcome"] == "failed"
    first = failed["checks"]["streaming"]["first"]
    assert list(first) == ["chunk", "frame", "channel", "output", "expected", "observed"]
    assert (first["chunk"], first["frame"]) == (2, 7)
    assert failed["checks"]["interpreter"]["outcome"] == "passed"
    assert error["outcome"] == "error"
    check = error["checks"]["streaming"]
    assert (check["elements"], check["compared"]) == (60, 45)
    assert check["error"] == "chunk 3: observed stream ends after 3"
    chunks = error["details"]["per_chunk"]["streaming"]
    assert [(c["chunk"], c["chunks"], c["outcome"]) for c in chunks] == [
        (0, 3, "passed"),
        (3, 1, "error"),
    ]


def test_what_is_read_back_is_what_was_written(results, make_row, make_results):
    timed = make_row(one_element, substrate="silicon", latency_us=Latency.of([100, 101, 150]))
    board = Device("esp32s3", "silicon", "ESP32-S3", 2, "/dev/ttyUSB0", "cd" * 32, "9")
    whole = results.merge(make_results(replace(timed, id="b"), devices=(board,)))
    content = json.loads(json.dumps(whole.to_json()))
    assert Results.from_json(content).to_json() == whole.to_json()
    assert Results.from_json(content).rows == tuple(
        replace(row, checks={n: without_index(c) for n, c in row.checks.items()})
        for row in whole.rows
    )
    content["rows"][0]["checks"]["streaming"]["later"] = content["devices"][0]["later"] = 1
    assert Results.from_json(content).to_json() == whole.to_json()


def without_index(check):
    """The file keeps frame and channel, not the index in its tensor."""
    return replace(check, first=check.first and replace(check.first, index=()))


def test_latency(make_row):
    timed = make_row(substrate="silicon", latency_us=Latency.of([100, 101, 150]))
    figures = {"median": 101.0, "p95": 145.1, "p99": 149.02, "max": 150.0}
    assert timed.to_json()["latency_us"] == figures
    assert timed.to_json()["latency_cycles"] is None  # of a clock that is not known


def test_what_is_taken_of_a_chip(make_row, make_results):
    taken = Resources(240, 5000, 900000, 81000, 1000, 20000, 300000, None, 9000)
    row = make_row(substrate="silicon", latency_us=Latency(1, 2, 3, 4.5), resources=taken)
    said = json.loads(json.dumps(row.to_json()))
    assert said["latency_cycles"] == {"median": 240, "p95": 480, "p99": 720, "max": 1080}
    assert Row.from_json(said) == row
    metrics = render_metrics(make_results(row))
    assert 'of="internal_peak"' in metrics
    assert 'of="psram_peak"' not in metrics
    with pytest.raises(ValueError, match="a device that is simulated measures no chip"):
        make_row(resources=taken)


def test_a_real_time_factor_needs_a_latency(make_row, results):
    timed = make_row(
        substrate="silicon", latency_us=Latency.of([100]), real_time_factor=0.01
    ).to_json()
    content = results.to_json()
    content["rows"][0]["real_time_factor"] = 0.01
    with pytest.raises(ResultsError, match="keeps a real time without a latency"):
        validate_results(content)
    assert timed["real_time_factor"] == 0.01


def test_quantization_settings_are_kept_and_reports_from_before_have_none(make_row, results):
    assert make_row(quantization={"batches": 8}).to_json()["quantization"] == {"batches": 8}
    content = results.to_json()
    content["rows"][0]["quantization"] = "minmax"
    with pytest.raises(ResultsError, match="quantization is no object"):
        validate_results(content)
    del content["rows"][0]["quantization"]
    validate_results(content)
    assert Results.from_json(content).rows[0].quantization is None


def test_a_simulated_row_takes_no_latency(make_row):
    with pytest.raises(ValueError, match="a device that is simulated measures no chip"):
        make_row(latency_us=Latency(1, 1, 1, 1))


def test_infinite_values_stay_json(make_row, make_results, tmp_path):
    expected = np.ones((1, 3, 5), np.float32)
    observed = expected.copy()
    observed[0, 0, 0] = np.inf
    verdict = compare_streams([{"y": expected}], [{"y": observed}], frame_axes={"y": 1})
    check = Check.of(verdict, elements=15, tolerance=EXACT)
    row = make_row(checks={"streaming": check}, outcome=verdict.outcome)
    content = json.loads(write_report(make_results(row), tmp_path).read_text())
    written = content["rows"][-1]["checks"]["streaming"]
    assert written["first"]["observed"] == "inf"
    assert written["max_lsb"] is None
    assert written["max_relative"] == "inf"
    again = Results.from_json(content).rows[0].checks["streaming"]
    assert (again.max_relative, again.first.observed) == (np.inf, np.inf)


# -- the worst stays ------------------------------------------------------------------


def test_outcomes_from_best_to_worst():
    passed, failed, error = Outcome.PASSED, Outcome.FAILED, Outcome.ERROR
    assert worst([passed, failed, passed]) is failed
    assert worst([failed, error, passed]) is error


def test_the_worse_check_stays_whichever_comes_first():
    good, bad = compare()[1], compare(one_element)[1]
    lost = compare(lambda observed: observed.pop())[1]
    assert worse(good, bad) is worse(bad, good) is bad
    assert worse(lost, bad) is worse(bad, lost) is lost
    assert worse(None, good) is worse(good, None) is good


def test_two_comparisons_make_one_check():
    good, bad = compare()[1], compare(one_element)[1]
    both = good + bad
    assert (both.outcome, both.compared, both.differing) == ("failed", 120, 1)
    assert (both.first, both.max_lsb) == (bad.first, 1)


def test_a_remark_fails_a_check_whose_numbers_agree():
    verdict, _ = compare()
    check = Check.of(verdict, elements=60, tolerance=EXACT, error="an output was not written")
    assert (check.outcome, check.differing) == ("failed", 0)
    assert check.error == "an output was not written"


@pytest.mark.parametrize("turn", [False, True])
def test_a_row_that_two_processes_speak_of_keeps_the_worst(make_row, make_results, turn):
    one = make_row(one_element, diagnosis={"cause": "why", "text": "why"})
    other = make_row(
        outcome=Outcome.ERROR, details=Details(error="no reply", replay=("espdl-hil replay x",))
    )
    other = replace(
        other, checks={"streaming": other.checks["streaming"], "reference": compare()[1]}
    )
    parts = [make_results(one), make_results(other, devices=())]
    (row,) = parts[turn].merge(parts[not turn]).rows
    assert row.outcome == "error"
    assert row.details.error == "no reply"
    assert row.details.replay == ("espdl-hil replay x",)
    assert row.diagnosis == {"cause": "why", "text": "why"}
    assert list(row.checks) == ["streaming", "interpreter", "reference"]
    assert row.checks["streaming"].differing == 1
    assert [c.outcome for c in row.details.per_chunk["streaming"]].count("failed") == 1


def test_merging_unites_devices_incidents_and_times(make_row, make_results):
    incident = Incident("esp32s3", "no reply", "soft reset", "recovered", 1.0)
    one = make_results(make_row(), duration_s=3, command="pytest", incidents=(incident,))
    second = Device("esp32p4", "simulated", "ESP32-P4", 301, "rfc2217://h:1", "", "5")
    two = make_results(
        make_row(id="b"), date="2026-11-25T11:59:00+00:00", duration_s=4, devices=(second,)
    )
    merged = one.merge(two, two)
    assert [row.id for row in merged.rows] == ["esp32s3-tcn-int8-chunk3", "b"]
    assert [device.target for device in merged.devices] == ["esp32s3", "esp32p4"]
    assert (merged.date, merged.duration_s) == ("2026-11-25T11:59:00+00:00", 4)
    assert (merged.command, merged.incidents) == ("pytest", (incident,))


# -- the files ---------------------------------------------------------------------------


def test_nothing_is_written_when_the_schema_is_broken(make_row, tmp_path):
    with pytest.raises(ResultsError, match="no such device is listed"):
        write_report(Results(DATE, rows=(make_row(),)), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_failing_write_leaves_the_old_file(results, tmp_path, monkeypatch):
    write_report(results, tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(replace(results, duration_s=99.0), tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "results.json"]


def test_a_new_run_clears_what_an_earlier_one_left(results, tmp_path):
    write_report(results, tmp_path)
    for folder in ("repro", "logs"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "old").write_text("old")
    (tmp_path / "mine.txt").write_text("not the report's")
    start_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    start_report(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


def test_workers_clear_their_own_logs(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("esp32s3.log", "esp32s3-gw0.log", "esp32p4-gw1.log", "esp32p4-gw10.log"):
        (logs / name).write_text("of the run before, or of this one")
    start_report(tmp_path, ["gw0", "gw1"])
    assert {path.name for path in logs.iterdir()} == {"esp32s3-gw0.log", "esp32p4-gw1.log"}
    clear_logs(tmp_path, "gw1")
    assert [path.name for path in logs.iterdir()] == ["esp32s3-gw0.log"]
    start_report(tmp_path)
    assert not logs.exists()


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match="taken/folder cannot be written: Not a directory"):
        start_report(tmp_path / "taken" / "folder")


# -- where the models come from --------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    environment = {
        **os.environ,
        **{
            f"GIT_{who}_{what}": "x@y"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def git(*words):
        command = ["git", "-C", str(tmp_path), *words]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text("MODEL = 1\n")
    git("add", ".")
    git("commit", "-qm", "one")
    return git


def test_the_commit_of_the_models_repository(repository, tmp_path):
    model = tmp_path / "models" / "mine.py"
    commit = commit_of([model])
    assert (commit.id, commit.dirty) == (repository("rev-parse", "HEAD"), False)
    (tmp_path / "hil-report").mkdir()
    (tmp_path / "hil-report" / "results.json").write_text("{}")  # untracked, elsewhere
    assert not commit_of([model]).dirty
    (tmp_path / "models" / "_blocks.py").write_text("")  # untracked, where models import from
    assert commit_of([model]).dirty
    (tmp_path / "models" / "_blocks.py").unlink()
    model.write_text("MODEL = 2\n")
    assert commit_of([model]).dirty


def test_no_commit_without_a_repository_or_with_two(repository, tmp_path, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "theirs.py"
    elsewhere.write_text("")
    assert commit_of([elsewhere]) is None
    assert commit_of([elsewhere, tmp_path / "models" / "mine.py"]) is None
    assert commit_of([]) is None


# -- the schema ---------------------------------------------------------------------------------


def test_unknown_fields_are_allowed(results):
    content = results.to_json()
    content["later"] = content["rows"][0]["later"] = 1
    validate_results(content)


@pytest.mark.parametrize("content", [[], "text", None])
def test_what_is_no_object_breaks_the_schema(content):
    with pytest.raises(ResultsError, match="schema is None, this reader knows 2"):
        validate_results(content)


def test_what_boards_were_sent_is_a_list_or_missing(results):
    content = results.to_json()
    del content["written"]
    validate_results(content)
    with pytest.raises(ResultsError, match="results: written is not a list"):
        validate_results({**content, "written": None})


def test_a_row_that_never_ran_needs_no_device(make_row):
    row = Row(
        **{name: getattr(make_row(), name) for name in ROW_FIELDS[:6]},
        outcome=Outcome.FAILED,
        details=Details(error="[S101] /pool: reduction over time"),
    )
    validate_results(Results(DATE, rows=(row,)).to_json())


def test_a_row_may_fail_beside_its_checks(make_row, make_results):
    """A control that was not noticed: every check passed all the same."""
    row = make_row(outcome=Outcome.FAILED, details=Details(error="a flipped bit went unseen"))
    validate_results(make_results(row).to_json())


def spoil(path, value):
    def apply(content):
        *parents, last = path
        for step in parents:
            content = content[step]
        if value is KeyError:
            del content[last]
        else:
            content[last] = value

    return apply


def accuracy(field, value):
    return spoil(["rows", 0, "checks", "accuracy", field], value)


def check(row, name, value):
    return spoil(["rows", row, "checks", "streaming", name], value)


def per_chunk(name, value):
    return spoil(["rows", 0, "details", "per_chunk", "streaming", 0, name], value)


@pytest.mark.parametrize("left_out", [("details",), (*Details.__dataclass_fields__,)])
def test_details_are_for_reading_and_may_be_missing(results, left_out):
    content = results.to_json()
    for row in content["rows"]:
        for name in left_out:
            (row if left_out == ("details",) else row["details"]).pop(name)
    read = Results.from_json(json.loads(json.dumps(content)))
    assert all(row.details == Details() for row in read.rows)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (spoil(["schema"], 1), "schema is 1, this reader knows 2"),
        (spoil(["rows"], {}), "rows is not a list"),
        *(
            (spoil([name], KeyError), f"results: {name} is missing")
            for name in ("date", "duration_s", "command", "commit", "environment")
        ),
        (spoil(["date"], "yesterday"), "results: date is 'yesterday'"),
        (spoil(["date"], "2026-11-25T12:00:00"), "results: date is "),
        (spoil(["duration_s"], -1), "results: duration_s is -1"),
        (spoil(["commit"], {"id": "1"}), "results: commit is {"),
        (spoil(["environment"], {"numpy": 2}), "results: environment is {'numpy': 2}"),
        (spoil(["incidents"], KeyError), "incidents is not a list"),
        (spoil(["incidents", 0, "seconds"], "1"), "incidents[0]: seconds is '1'"),
        (spoil(["devices", 0, "substrate"], "serial"), "devices[0]: substrate is 'serial'"),
        (spoil(["devices", 0, "chip"], KeyError), "devices[0]: chip is missing"),
        (spoil(["rows", 0], 3), "rows[0]: not an object"),
        *(
            (spoil(["rows", 0, name], KeyError), f"rows[0]: {name} is missing")
            for name in ROW_FIELDS[:-1]
            if name != "quantization"  # which reports from before do not have
        ),
        *((check(0, name, KeyError), "rows[0]: checks is {") for name in CHECK_FIELDS),
        (spoil(["rows", 0, "checks", "reference"], KeyError), "rows[0]: checks is {"),
        (spoil(["rows", 0, "outcome"], "ok"), "rows[0]: outcome is 'ok'"),
        (check(0, "compared", -1), "rows[0]: checks is {"),
        (spoil(["rows", 0, "bits"], True), "rows[0]: bits is True"),
        (spoil(["rows", 0, "cosine"], float("nan")), "rows[0]: cosine is nan"),
        (check(1, "first", {"chunk": 1}), "rows[1]: checks is {"),
        (check(0, "compared", 0), "streaming: passed, but nothing was compared"),
        (
            spoil(
                ["rows", 0, "checks"],
                dict.fromkeys(("streaming", "interpreter", "reference", "accuracy")),
            ),
            ": passed, but nothing was compared",
        ),
        (check(0, "outcome", "failed"), "streaming: failed, but nothing differs"),
        (check(0, "outcome", "failed"), ": better than its worst check"),
        (spoil(["rows", 1, "outcome"], "passed"), ": better than its worst check"),
        (check(2, "error", ""), "streaming: error, but no error is given"),
        (accuracy("sqnr_db", 4.0), "accuracy: passed, but less is kept than is asked for"),
        (accuracy("sqnr_db", 41.0), "accuracy: sqnr_db is no output's"),
        (accuracy("outcome", "failed"), "accuracy: failed, but no error is given"),
        (accuracy("outcome", "failed"), ": better than its worst check"),
        (accuracy("min_sqnr_db", None), "rows[0]: checks is {"),
        (spoil(["rows", 0, "outcome"], "failed"), "failed, but nothing says why"),
        (spoil(["rows", 0, "outcome"], "error"), "error, but nothing says why"),
        (check(0, "compared", 61), "streaming: more was compared than was expected"),
        (check(1, "differing", 61), "streaming: more elements differ than were compared"),
        (check(1, "first", None), "streaming: differs, but first is null"),
        (check(1, "differing", 0), "streaming: first is given, but nothing differs"),
        (
            spoil(["rows", 0, "latency_us"], {"median": 1, "p95": 1, "p99": 1, "max": 1}),
            "simulated, but has a latency",
        ),
        (spoil(["rows", 0, "details"], []), "chunk3): details: not an object"),
        (spoil(["rows", 0, "details", "error"], None), "chunk3): details: error is None"),
        (spoil(["rows", 0, "details", "findings"], "x"), "chunk3): details: findings is 'x'"),
        (spoil(["rows", 0, "details", "pictures"], None), "chunk3): pictures is no object"),
        (spoil(["rows", 0, "details", "tolerances"], [{}]), "chunk3): details: tolerances is [{}]"),
        (per_chunk("outcome", "ok"), "chunk3): details: per_chunk is {"),
        (per_chunk("chunks", 10**12), "rows: their checks claim 10000000000"),
        (spoil(["rows", 0, "target"], "esp32p4"), "no such device is listed"),
        (spoil(["rows", 0, "substrate"], "silicon"), "no such device is listed"),
    ],
)
def test_every_fault_is_named(results, change, text):
    content = json.loads(json.dumps(results.to_json()))
    untouched = copy.deepcopy(content)
    change(content)
    with pytest.raises(ResultsError) as caught:
        validate_results(content)
    assert text in str(caught.value)
    validate_results(untouched)


def test_tolerances_of_the_checks_that_two_processes_made_are_kept(make_row):
    def made(name, tolerance):
        entry = Allowance(name, "default", "outputs", tolerance, "", "as it is")
        return replace(
            make_row(), checks={name: compare()[1]}, details=Details(tolerances=(entry,))
        )

    merged = made("reference", "exact").merged(made("streaming", "1 LSB"))

    assert [(e.check, e.allowed) for e in merged.details.tolerances] == [
        ("streaming", "1 LSB"),
        ("reference", "exact"),
    ]
