"""The baseline: numbers bit by bit, latency by an exact test that seldom alarms for nothing."""

import dataclasses
import itertools
import json
import random
from pathlib import Path

import pytest

from espdl_hil.cli import main
from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError
from espdl_hil.report import SILICON, Accuracy, Details, Device, Latency, Results, Row
from espdl_hil.report.baseline import (
    RowChange,
    gather,
    judge_latency,
    judge_rows,
    rank_p,
    read_baseline,
)

NOISE = json.loads((Path(__file__).parent / "latency_noise.json").read_text())["medians_us"]
TRIALS = 1000
CASE = "esp32s3-tcn-int8-chunk3"


def run(outputs="a" * 64, latency_us=100.0, *, sqnr_db=31.0, esp_ppq="1.3.12", rows=(CASE,)):
    """Results of one run on a chip."""
    device = Device("esp32s3", SILICON, "ESP32-S3", 2, "/dev/a", "app", "boot", "", "3.3.9", "5.4")
    made = [
        Row(
            id=case,
            target="esp32s3",
            model="tcn",
            bits=8,
            chunk_frames=3,
            substrate=SILICON,
            outcome=Outcome.PASSED,
            outputs={"tcn-int8-offline": outputs},
            accuracy=Accuracy(Outcome.PASSED, sqnr_db, 0.0, 10.0, {"output": sqnr_db}),
            sqnr_db=sqnr_db,
            latency_us=Latency(latency_us, latency_us, latency_us, latency_us)
            if latency_us
            else None,
        )
        for case in rows
    ]
    return Results(
        date="2026-11-25T00:00:00+00:00",
        environment={"esp-ppq": esp_ppq},
        devices=(device,),
        rows=tuple(made),
    )


def runs(count, median_us, **options):
    return [run(latency_us=median_us + 0.1 * number, **options) for number in range(count)]


def changes(before, after):
    return [(found.change, found.text) for found in judge_rows(gather(before), gather(after))]


def test_the_same_is_the_same():
    assert changes(runs(5, 100), runs(5, 100)) == [(RowChange.SAME, "")]


def test_an_exporter_that_changes_numbers_is_a_finding():
    """Even when stream still equals offline."""
    ((change, text),) = changes(
        runs(5, 100), runs(5, 100, outputs="b" * 64, sqnr_db=28.5, esp_ppq="1.3.13")
    )
    assert change is RowChange.NUMBERS
    assert text == "other outputs (esp-ppq 1.3.12 → 1.3.13); SQNR 31.0 dB → 28.5 dB"
    ((change, text),) = changes(runs(5, 100), runs(5, 100, sqnr_db=28.5))
    assert (change, "another float model" in text) == (RowChange.NUMBERS, True)


def test_slower_and_faster_are_told_with_numbers():
    ((change, text),) = changes(runs(5, 100), runs(5, 110))
    assert (change, text) == (RowChange.SLOWER, "100.2 → 110.2 µs (+10.0 %), p = 0.004")
    assert changes(runs(5, 110), runs(5, 100))[0][0] is RowChange.FASTER
    assert changes(runs(5, 100), runs(5, 101))[0][0] is RowChange.SAME  # sure, and too small


def test_what_cannot_be_judged_is_said():
    assert changes(runs(5, 100), runs(3, 200))[0][0] is RowChange.UNJUDGED
    assert changes(runs(5, 100), [run(latency_us=None)])[0][0] is RowChange.UNJUDGED
    assert [found[0] for found in changes(runs(5, 100), [run(rows=("other",))])] == [
        RowChange.ABSENT,
        RowChange.NEW,
    ]


def test_runs_that_differ_among_each_other_are_no_record():
    with pytest.raises(ConfigError, match="outputs differ between runs of the same model"):
        gather([run(), run(outputs="b" * 64)])


def test_many_rows_need_surer_findings():
    """One in a hundred checks may alarm for nothing, not one row in a hundred."""
    rows = [f"case{number}" for number in range(50)]
    few = changes(runs(5, 100, rows=rows), runs(5, 110, rows=rows))
    assert {change for change, _ in few} == {RowChange.UNJUDGED}
    enough = changes(runs(8, 100, rows=rows), runs(8, 110, rows=rows))
    assert {change for change, _ in enough} == {RowChange.SLOWER}


def brute_force(low, high):
    """By all ways to choose which values are the high ones."""
    values = [*low, *high]
    rank = {v: sum(o < v for o in values) + (values.count(v) + 1) / 2 for v in values}
    ways = list(itertools.combinations(range(len(values)), len(high)))
    sums = [sum(rank[values[place]] for place in way) for way in ways]
    seen = sum(rank[value] for value in high)
    return sum(total >= seen for total in sums) / len(sums)


def test_the_rank_test_is_exact():
    rng = random.Random(7)
    for _ in range(100):
        low = [rng.randrange(6) for _ in range(rng.randrange(1, 6))]
        high = [rng.randrange(6) for _ in range(rng.randrange(1, 6))]
        assert rank_p(low, high) == pytest.approx(brute_force(low, high), abs=1e-12)


def alarms(count, factor=1.0, *, mixed):
    """Trials out of ``TRIALS`` of recorded noise that are called slower."""
    rng = random.Random(1)
    slower = 0
    for _ in range(TRIALS):
        at = rng.randrange(len(NOISE) - 2 * count)
        taken = rng.sample(NOISE, 2 * count) if mixed else NOISE[at : at + 2 * count]
        after = [factor * value for value in taken[count:]]
        slower += judge_latency(taken[:count], after)[0] is RowChange.SLOWER
    return slower


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "in order"])
def test_recorded_noise_alarms_in_at_most_one_trial_of_a_hundred(mixed):
    assert len(NOISE) >= 500
    assert alarms(8, mixed=mixed) <= TRIALS // 100


def test_what_is_slower_is_found_in_the_same_noise():
    assert alarms(8, 3.0, mixed=True) > 0.9 * TRIALS


def test_three_percent_are_found_in_noise_of_a_tenth_of_a_percent():
    """Made up: nobody has recorded a chip yet."""
    rng = random.Random(1)
    quiet = [[100 + 0.1 * rng.random() for _ in range(16)] for _ in range(TRIALS)]
    found = [judge_latency(t[:8], [1.03 * v for v in t[8:]])[0] for t in quiet]
    assert found.count(RowChange.SLOWER) == TRIALS


def test_the_command_records_and_checks(tmp_path, capsys):
    for number, results in enumerate([*runs(5, 100), *runs(5, 120)]):
        (tmp_path / f"{number}.json").write_text(json.dumps(results.to_json()))
    paths = [str(tmp_path / f"{number}.json") for number in range(10)]
    baseline = f"--baseline={tmp_path / 'baseline.json'}"
    assert main(["baseline", "check", *paths[:5], baseline]) == 2
    assert "record one: espdl-hil baseline record" in capsys.readouterr().err
    assert main(["baseline", "record", *paths[:5], baseline]) == 0
    assert main(["baseline", "check", *paths[:5], baseline]) == 0
    assert main(["baseline", "check", *paths[5:], baseline]) == 1
    assert f"{CASE}: slower: 100.2 → 120.2 µs" in capsys.readouterr().out
    (entry,) = read_baseline(tmp_path / "baseline.json").values()
    assert entry.versions == {"esp-ppq": "1.3.12", "ESP-DL": "3.3.9", "ESP-IDF": "5.4"}
    assert entry.revisions == (2,)
    assert len(entry.latency_us) == 5


@pytest.mark.parametrize(
    ("outcome", "outputs", "code"),
    [
        (Outcome.FAILED, {"a": "b" * 64}, 2),
        (Outcome.ERROR, {"a": "b" * 64}, 2),
        (Outcome.DEVIATES, {"a": "b" * 64}, 0),  # as an emulator is known to
        (Outcome.FAILED, {}, 0),  # of which nothing is recorded
    ],
)
def test_what_is_known_to_be_wrong_is_not_recorded(tmp_path, capsys, outcome, outputs, code):
    results = run(latency_us=None)
    good = dataclasses.replace(results.rows[0], substrate="emulated")
    row = dataclasses.replace(
        good,
        id="esp32s3-gru-int8-chunk3",
        outcome=outcome,
        outputs=outputs,
        details=Details(error="because"),
        diagnosis={"cause": "c", "text": "t"},
    )
    device = dataclasses.replace(results.devices[0], substrate="emulated")
    data = dataclasses.replace(results, devices=(device,), rows=(good, row)).to_json()
    path, baseline = tmp_path / "results.json", tmp_path / "baseline.json"
    path.write_text(json.dumps(data))
    assert main(["baseline", "record", str(path), f"--baseline={baseline}"]) == code
    assert baseline.exists() == (code == 0)
    said = f"these rows did not pass: esp32s3-gru-int8-chunk3 ({outcome})\n"
    assert (said in capsys.readouterr().err) == (code == 2)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "entries": [{}]}'])
def test_a_file_that_is_no_baseline(tmp_path, text):
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"baseline.json( is no baseline|: schema 2)"):
        read_baseline(path)


def test_a_simulated_row_has_numbers_and_no_time():
    results = run(latency_us=None)
    device = dataclasses.replace(results.devices[0], substrate="simulated")
    row = dataclasses.replace(results.rows[0], substrate="simulated")
    (entry,) = gather([dataclasses.replace(results, devices=(device,), rows=(row,))]).values()
    assert entry.latency_us == ()
    assert entry.outputs
