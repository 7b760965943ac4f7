import io
from dataclasses import replace

import pytest
from rich.console import Console

from espdl_hil.compare import Outcome
from espdl_hil.report import (
    Accuracy,
    Details,
    Device,
    Incident,
    Latency,
    Results,
    render_html,
    render_table,
)

from .conftest import DATE, one_element


def render(results, width, **options):
    out = io.StringIO()
    render_table(results, Console(file=out, width=width, **options))
    return out.getvalue()


def test_whole_table(results, make_row):
    more = make_row(id="esp32s3-tcn-int8-chunk6", chunk_frames=6, sqnr_db=62.04)
    assert render(replace(results, rows=(*results.rows, more)), 80).splitlines() == [
        "SIMULATED ESP32-S3 v0.2 at rfc2217://127.0.0.1:4000",
        "model  rows  outcome  device          SQNR dB",
        "tcn       2  passed   simulated  40.0 to 62.0",
        "tcn       1  failed   simulated          40.0",
        "gru       1  error    simulated          40.0",
        "4 rows: 2 passed, 1 failed, 1 error; 465 elements compared, 1 differ",
        "esp32s3-tcn-int16-chunk3 (simulated) failed: chunk 2, first at frame 7, channel ",
        "4: " + str(results.rows[1].checks["streaming"].first).partition(": ")[2],
        "  stream against offline run: 1 of 60 differ, at most 1 LSB",
        f"  chunk 2, {results.rows[1].checks['streaming'].first}",
        "esp32s3-gru-int8-chunk3 (simulated) error: chunk 3: observed stream ends after 3",
        "  stream against offline run: chunk 3: observed stream ends after 3",
        "recovery of esp32s3: no reply; soft reset: recovered (1.2 s)",
        "Simulated devkits prove export, streaming plan, transport and firmware core; ",
        "they measure no chip time.",
    ]


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_fits_any_width_and_marks_every_group(results, width):
    lines = render(results, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("SIMULATED ESP32-S3")
    if width >= 60:
        groups = [line for line in lines if line.startswith(("tcn ", "gru "))]
        assert len(groups) == 3
        assert all("simulated" in group for group in groups)


def test_the_metric_of_the_task_is_a_column_where_a_model_has_one(make_row, make_results):
    kept = Accuracy(Outcome.PASSED, 40.0, 40.0, 10.0, {"y": 40.0})
    metric = {"float": 0.95, "offline": 0.9, "streamed": 0.8125}
    rows = make_row(accuracy=replace(kept, metric=metric)), make_row(model="gru", accuracy=kept)
    _, head, tcn, gru, *_ = render(make_results(*rows), 80).splitlines()
    assert head.split() == ["model", "rows", "outcome", "device", "SQNR", "dB", "metric"]
    assert tcn.split()[-2:] == ["40.0", "0.812"]
    assert gru.split()[-1] == "40.0"
    assert "metric" not in render(make_results(rows[1]), 80)


def test_no_name_is_broken_at_eighty_columns(make_row, make_results):
    name = "a_model_whose_name_is_longer_than_most"
    text = render(make_results(make_row(one_element, model=name), make_row(model=name)), 80)
    assert sum(line.startswith(f"{name} ") for line in text.splitlines()) == 2


def test_a_command_stays_whole_to_be_copied(make_row, make_results):
    command = f"espdl-hil replay {'long/' * 30}repro/a.zip"
    row = make_row(one_element, details=Details(replay=(command,)))
    assert f"  {command}\n" in render(make_results(row), 80)


def test_no_colour_off_a_terminal_and_colour_on_one(results):
    assert "\x1b" not in render(results, 100)
    assert "\x1b" in render(results, 100, force_terminal=True, color_system="standard")


def test_a_board_shows_time_and_no_simulated_mark(make_row):
    row = make_row(substrate="silicon", latency_us=Latency(812, 820, 900, 900))
    text = render(Results(DATE, rows=(row,)), 130)
    assert "µs/chunk" in text
    assert " 812" in text
    assert "imulated" not in text


def test_nothing_compared_is_said():
    assert render(Results(DATE), 80) == "no verdicts: nothing was compared\n"


def test_the_cause_is_shown_where_there_is_one(make_row):
    def shift(observed):
        observed[0]["y"] += 1

    row = make_row(shift, diagnosis={"cause": "rounding mode", "text": "long"})
    text = render(Results(DATE, rows=(row,)), 100)
    assert "esp32s3-tcn-int8-chunk3 (simulated) failed: rounding mode\n" in text


def test_the_layer_and_the_next_step_are_shown(make_row):
    found = {"operator": "Conv", "node": "/a/Conv", "next_step": "flash again"}
    row = make_row(one_element, diagnosis={"cause": "weights", "text": "", **found})
    lines = render(Results(DATE, rows=(row,)), 100).splitlines()
    assert "  begins in Conv /a/Conv" in lines
    assert "  next: flash again" in lines


def test_a_device_that_computes_wrongly_shows_its_own_differences(make_row, make_results):
    """Both its runs are wrong alike: the stream equals the offline run, not the interpreter's."""
    text = render(make_results(make_row(one_element, spoilt=("interpreter",))), 100)
    assert "  device against interpreter: 1 of 60 differ, at most 1 LSB\n" in text
    assert "stream against offline run" not in text
    assert "; 120 elements compared, 1 differ" in text
    assert "  chunk 2, first at frame 7, channel 4" in text


def test_markup_in_names_is_text(make_row):
    row = make_row(model="[red]x[/red]")
    assert "[red]x[/red]" in render(Results(DATE, rows=(row,)), 120)


HOSTILE = "\x1b[2J\x1b]0;title\x07\x1b[1A\x9b31m\u202eok\x08\r"


def test_text_of_a_device_never_controls_a_terminal_or_the_page(make_row, make_results):
    device = ("esp32s3", "simulated", f"ESP32{HOSTILE}", 2, f"socket://{HOSTILE}", "cd" * 32)
    found = make_results(
        make_row(one_element, model=HOSTILE, details=Details(error=f"said {HOSTILE}")),
        devices=(Device(*device, "17"),),
        incidents=(Incident("esp32s3", HOSTILE, "soft reset", HOSTILE, 1.0),),
        environment={HOSTILE: HOSTILE},
        command=HOSTILE,
    )
    for text in (render(found, 200), render_html(found)):
        assert "\\u202eok\\x08\\r" in text
        assert "ok" in text
        assert not set("\x1b\x9b\x07\x08\r\u202e") & set(text)


def test_a_row_that_failed_without_a_difference_says_so(make_row):
    failed = make_row(outcome=Outcome.FAILED, details=Details(error="a control was not noticed"))
    text = render(Results(DATE, rows=(failed, make_row())), 120)
    assert "2 rows: 1 passed, 1 failed; " in text
    assert " 0 differ, 1 failed otherwise\n" in text
    assert "otherwise" not in render(Results(DATE, rows=(make_row(),)), 120)


@pytest.mark.parametrize("width", [60, 90, 130])
@pytest.mark.parametrize(
    ("sqnr_db", "changes_db", "said"),
    [
        (4.1, 3.0, "4.1 dB kept, of the changes 3.0 dB; at least 10 dB"),
        (23.2, -16.5, "23.2 dB kept, of the changes -16.5 dB; at least 10 dB"),
    ],
)
def test_too_little_accuracy_is_shown_at_any_width(make_row, sqnr_db, changes_db, said, width):
    lacking = Accuracy(
        Outcome.FAILED, sqnr_db, changes_db, 10.0, {"y": sqnr_db}, "lost in Conv '/a/Conv'"
    )
    row = make_row(accuracy=lacking, outcome=Outcome.FAILED, details=Details(error="assert 0"))
    text = render(Results(DATE, rows=(row,)), width)
    assert "SQNR" in text
    flat = " ".join(text.split())
    assert said in flat
    assert "esp32s3-tcn-int8-chunk3 (simulated) failed: lost in Conv '/a/Conv'" in flat
