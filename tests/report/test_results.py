import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from espdl_hil.compare import Outcome, compare, compare_streams
from espdl_hil.report import Details, Device, Latency, Results, ResultsError, Row, validate_results

# The schema's own list, written out: a field that is lost must be noticed.
# fmt: off
ROW_FIELDS = [
    "id", "target", "model", "bits", "chunk_frames", "device_kind", "outcome", "chunks",
    "frames", "elements", "differing", "max_lsb", "first", "reference", "sqnr_db", "cosine",
    "latency_us", "artifacts", "diagnosis", "details",
]
# fmt: on


def test_what_is_written_is_what_is_validated(results, tmp_path):
    path = results.write(tmp_path / "deep" / "hil-report")
    assert path == tmp_path / "deep" / "hil-report" / "results.json"
    content = json.loads(path.read_text())
    validate_results(content)
    assert list(content) == ["schema", "environment", "devices", "rows"]
    assert content["schema"] == 1
    assert sorted(content["rows"][0]) == sorted(ROW_FIELDS)
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "results.json"]


def test_rows_say_what_the_verdict_says(results):
    passed, failed, error = results.to_json()["rows"]
    assert (passed["outcome"], passed["elements"], passed["differing"]) == ("passed", 60, 0)
    assert (passed["first"], passed["max_lsb"], passed["latency_us"]) == (None, 0, None)
    assert passed["sqnr_db"] == pytest.approx(40)
    assert failed["outcome"] == "failed"
    assert list(failed["first"]) == ["chunk", "frame", "channel", "expected", "observed"]
    assert (failed["first"]["chunk"], failed["first"]["frame"]) == (2, 7)
    assert error["outcome"] == "error"
    assert error["details"]["error"] == "chunk 3: observed stream ends after 3"
    assert [c["outcome"] for c in error["details"]["per_chunk"]] == ["passed"] * 3 + ["error"]


def test_reference_and_latency(make_row, results):
    a = np.array([[1, 2, 3]], np.int16)
    row = make_row(device_kind="serial", reference=compare(a, a + np.int16(1)))
    assert row.to_json()["reference"] == {"differing": 3, "max_lsb": 1}
    timed = make_row(device_kind="serial", latency_us=Latency.of([100, 101, 150]))
    assert timed.to_json()["latency_us"] == {"median": 101.0, "p95": 145.1, "max": 150.0}


def test_a_simulated_row_takes_no_latency(make_row):
    with pytest.raises(ValueError, match="a simulated device measures no chip time"):
        make_row(latency_us=Latency(1, 1, 1))


def test_infinite_values_stay_json(make_row, results, tmp_path):
    expected = np.ones((1, 3, 5), np.float32)
    observed = expected.copy()
    observed[0, 0, 0] = np.inf
    verdict = compare_streams([{"y": expected}], [{"y": observed}], frame_axes={"y": 1})
    results.add_row(
        replace(
            make_row(),
            outcome=verdict.outcome,
            first=verdict.first,
            differing=1,
            max_lsb=verdict.max_lsb,
        )
    )
    content = json.loads(results.write(tmp_path).read_text())
    assert content["rows"][-1]["first"]["observed"] == "inf"
    assert content["rows"][-1]["max_lsb"] is None


def test_the_same_boot_is_listed_once(results):
    again = results.devices[0]
    results.add_device(again)
    assert len(results.devices) == 1
    results.add_device(Device(**{**vars(again), "boot_nonce": "18"}))
    assert len(results.devices) == 2


def test_nothing_is_written_when_the_schema_is_broken(make_row, tmp_path):
    results = Results()
    results.add_row(make_row())
    with pytest.raises(ResultsError, match="no such device is listed"):
        results.write(tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_failing_write_leaves_the_old_file(results, tmp_path, monkeypatch):
    results.write(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    results.add_row(results.rows[0])

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        results.write(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "results.json"]


def test_unknown_fields_are_allowed(results):
    content = results.to_json()
    content["later"] = content["rows"][0]["later"] = 1
    validate_results(content)


def test_a_row_that_never_ran_needs_no_device(make_row):
    results = Results()
    row = Row(
        **{name: getattr(make_row(), name) for name in ROW_FIELDS[:6]},
        outcome=Outcome.FAILED,
        details=Details(error="[S101] /pool: reduction over time"),
    )
    results.add_row(row)
    validate_results(results.to_json())


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


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (spoil(["schema"], 2), "schema is 2, this reader knows 1"),
        (spoil(["rows"], {}), "rows is not a list"),
        (spoil(["environment"], {"numpy": 2}), "environment: not a table of texts"),
        (spoil(["devices", 0, "kind"], "emulated"), "devices[0]: kind is 'emulated'"),
        (spoil(["devices", 0, "chip"], KeyError), "devices[0]: chip is missing"),
        (spoil(["rows", 0], 3), "rows[0]: not an object"),
        *(
            (spoil(["rows", 0, name], KeyError), f"rows[0]: {name} is missing")
            for name in ROW_FIELDS[:-1]
        ),
        (spoil(["rows", 0, "outcome"], "ok"), "rows[0]: outcome is 'ok'"),
        (spoil(["rows", 0, "elements"], -1), "rows[0]: elements is -1"),
        (spoil(["rows", 0, "bits"], True), "rows[0]: bits is True"),
        (spoil(["rows", 0, "cosine"], float("nan")), "rows[0]: cosine is nan"),
        (spoil(["rows", 1, "first", "frame"], None), "rows[1]: first is {"),
        (spoil(["rows", 0, "elements"], 0), "passed, but nothing was compared"),
        (spoil(["rows", 0, "outcome"], "failed"), "failed, but nothing differs"),
        (spoil(["rows", 1, "differing"], 61), "more elements differ than were compared"),
        (spoil(["rows", 1, "first"], None), "differs, but first is null"),
        (spoil(["rows", 1, "differing"], 0), "first is given, but nothing differs"),
        (
            spoil(["rows", 0, "latency_us"], {"median": 1, "p95": 1, "max": 1}),
            "simulated, but has a latency",
        ),
        (spoil(["rows", 0, "target"], "esp32p4"), "no such device is listed"),
        (spoil(["rows", 0, "device_kind"], "serial"), "no such device is listed"),
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
