from dataclasses import replace

import pytest

from espdl_hil.compare import Outcome
from espdl_hil.report import Check, Latency, by_target, changes, describe, render_comparison

from .conftest import compare, one_element
from .test_html import Page


@pytest.fixture
def base(make_row, make_results):
    row = make_row(outputs={"tcn": "ab" * 32})
    return make_results(row, make_row(id="b", model="gru"), environment={"esp-ppq": "1.3.11"})


def edited(results, number=0, **fields):
    rows = list(results.rows)
    rows[number] = replace(rows[number], **fields)
    return replace(results, rows=tuple(rows))


def texts(before, after):
    return [str(change) for change in changes(before, after)]


def test_two_equal_runs_have_no_difference(base):
    assert changes(base, base) == []
    assert (
        describe(changes(base, replace(base, date="2027-01-01T00:00:00+00:00"))) == "no difference"
    )


def two_elements(observed):
    one_element(observed)
    observed[3]["y"][0, 2, 1] ^= 1


def one_step_further(observed):
    observed[2]["y"][0, 1, 4] += 3


def with_check(results, spoil):
    check = compare(spoil)[1]
    row = results.rows[0]
    return edited(results, checks={**row.checks, "streaming": check}, outcome=check.outcome)


def test_one_step_in_one_element_of_a_run_that_passed(base):
    after = with_check(base, one_element)
    found = texts(base, after)
    assert "REGRESSION esp32s3-tcn-int8-chunk3: outcome: passed → failed" in found
    name = "esp32s3-tcn-int8-chunk3: stream against offline run, "
    assert f"REGRESSION {name}differing: 0 → 1" in found
    assert f"REGRESSION {name}largest difference, LSB: 0 → 1" in found
    assert not any(change.regression for change in changes(after, base))


@pytest.mark.parametrize(
    ("spoil", "what"), [(two_elements, "differing: 1 → 2"), (one_step_further, "LSB: 1 → 3")]
)
def test_one_more_step_or_element_of_a_run_that_failed(base, spoil, what):
    before, after = with_check(base, one_element), with_check(base, spoil)
    assert any(
        text.startswith("REGRESSION ") and text.endswith(what) for text in texts(before, after)
    )


def test_other_outputs_of_the_same_file_are_worse_and_of_another_file_are_not(base):
    other = edited(base, outputs={"tcn": "cd" * 32})
    assert texts(base, other) == [
        "REGRESSION esp32s3-tcn-int8-chunk3: output of tcn: abababababab → cdcdcdcdcdcd"
    ]
    other = edited(other, artifacts={"chunk3.espdl": "ef" * 32})
    assert [change.regression for change in changes(base, other)] == [False, False]


@pytest.mark.parametrize(("by", "worse"), [(-0.5, True), (0.5, False), (-0.02, False)])
def test_quality(base, by, worse):
    (change,) = changes(base, edited(base, sqnr_db=base.rows[0].sqnr_db + by))
    assert (change.what, change.after, change.regression) == ("SQNR, dB", f"{40 + by:.2f}", worse)
    assert changes(base, edited(base, sqnr_db=base.rows[0].sqnr_db + 0.001)) == []


def test_a_row_that_vanished_and_one_that_appeared(base):
    fewer = replace(base, rows=base.rows[:1])
    assert texts(base, fewer) == ["REGRESSION b: row: passed → vanished"]
    assert texts(fewer, base) == ["b: row: - → new, passed"]
    bad = edited(base, 1, outcome=Outcome.FAILED)
    assert texts(fewer, bad) == ["REGRESSION b: row: - → new, failed"]


def test_a_check_that_is_no_longer_made_or_sees_less(base):
    row = base.rows[0]
    fewer = edited(base, checks={"streaming": row.checks["streaming"]})
    assert (
        "REGRESSION esp32s3-tcn-int8-chunk3: device against interpreter: made → not made"
        in texts(base, fewer)
    )
    blind: Check = replace(row.checks["streaming"], compared=50)
    (change,) = changes(base, edited(base, checks={**row.checks, "streaming": blind}))
    assert (change.before, change.after, change.regression) == ("0", "10", True)


def test_fewer_elements_of_a_shorter_stream(base):
    row = base.rows[0]
    check = replace(row.checks["streaming"], elements=30, compared=30)
    shorter = edited(base, checks={**row.checks, "streaming": check})
    name = "esp32s3-tcn-int8-chunk3: stream against offline run, compared"
    assert texts(base, shorter) == [f"REGRESSION {name}: 60 → 30"]
    assert texts(shorter, base) == [f"{name}: 30 → 60"]


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        ("exact", "2 LSB", True),
        ("exact; 1 of 1 LSB at GRU '/gru'", "1 LSB; 1 of 1 LSB at GRU '/gru'", True),
        ("exact", "exact, float 0.01", True),
        ("2 LSB", "exact", False),
        ("1 LSB", "2 LSB", False),  # which was the user's word before, too
        ("exact", "exact; 1 of 1 LSB at GRU '/gru'", False),  # elements that differ say it
    ],
)
def test_a_tolerance_that_is_no_longer_exact(base, before, after, worse):
    checks = base.rows[0].checks
    one, other = (
        edited(base, checks={**checks, "streaming": replace(checks["streaming"], tolerance=text)})
        for text in (before, after)
    )
    (change,) = changes(one, other)
    assert (change.before, change.after, change.regression) == (before, after, worse)


@pytest.mark.parametrize(("substrate", "worse"), [("silicon", False), ("simulated", True)])
def test_float_steps_of_a_board_are_no_looser_tolerance_of_the_model(base, substrate, worse):
    checks = base.rows[0].checks
    check = replace(checks["interpreter"], tolerance="1 LSB")
    board = edited(base, checks={**checks, "interpreter": check}, substrate=substrate)
    assert [change.regression for change in changes(base, board)] == [worse]


def test_accuracy_that_is_no_longer_measured_asks_for_less_or_gives_another_metric(base):
    name = "esp32s3-tcn-int8-chunk3: "
    without = edited(base, accuracy=None)
    assert texts(base, without) == [f"REGRESSION {name}accuracy: made → not made"]
    assert texts(without, base) == [f"{name}accuracy: not made → made"]
    less = edited(base, accuracy=replace(base.rows[0].accuracy, min_sqnr_db=-90.0))
    assert texts(base, less) == [f"{name}least SQNR, dB: 10 → -90"]
    metric = {"float": 0.9, "offline": 0.9, "streamed": 0.8}
    measured = edited(base, accuracy=replace(base.rows[0].accuracy, metric=metric))
    other = {**metric, "streamed": 0.1}
    changed = edited(base, accuracy=replace(base.rows[0].accuracy, metric=other))
    assert texts(measured, changed) == [f"{name}metric, streamed: 0.8 → 0.1"]
    assert texts(measured, base)[0] == f"{name}metric, float: 0.9 → -"


def test_a_version_and_a_board(base):
    board = replace(base.devices[0], revision=101)
    after = replace(base, environment={"esp-ppq": "1.3.12"}, devices=(board,))
    assert texts(base, after) == [
        "esp-ppq: 1.3.11 → 1.3.12",
        "simulated esp32s3: ESP32-S3 v0.2 → ESP32-S3 v1.1",
    ]
    assert describe(changes(base, after)) == "2 changes, no regressions"


@pytest.mark.parametrize(("median", "worse"), [(104, False), (106, True), (50, False)])
def test_time(make_row, make_results, median, worse):
    def timed(us):
        return make_results(make_row(substrate="silicon", latency_us=Latency(us, us, us, us)))

    (change,) = changes(timed(100), timed(median))
    assert (change.what, change.regression) == ("µs a chunk, median", worse)


def test_targets_of_one_run(make_row, make_results):
    def row(target, **fields):
        return make_row(id=f"{target}-tcn-int8-chunk3", target=target, **fields)

    split = by_target(make_results(row("esp32s3"), row("esp32p4", sqnr_db=33.0, artifacts={})))
    assert list(split) == ["esp32s3", "esp32p4"]
    assert texts(*split.values()) == ["REGRESSION tcn-int8-chunk3: SQNR, dB: 40.00 → 33.00"]


def test_the_page_has_a_column_a_run_and_frames_what_changed(base, make_row):
    runs = {"a": base, "b": with_check(base, one_element), "<c>": replace(base, rows=base.rows[:1])}
    page = Page(render_comparison(runs))
    assert "3 runs, some are worse" in page.text
    assert "b against a: 3" not in page.text
    assert "stream against offline run, differing 0 1 regression" in page.text
    assert "<c> against a: 1 change in 1 row, 1 regression" in page.text
    cells = page.cells()
    assert len(cells) == 5
    assert [cell["class"] for cell in cells if cell.get("aria-current")] == ["cell failed"]
    assert "No difference" in Page(render_comparison({"a": base, "b": base})).text
