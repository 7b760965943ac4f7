"""`compare`, `history` and the options behind them, as a shell sees them."""

import json

import pytest

from espdl_hil.cli import main
from espdl_hil.compare import Outcome
from espdl_hil.report import Accuracy, Check, Device, History, Results, Row

DATE = "2026-11-25T12:00:00+00:00"


def results(sqnr_db=31.0, targets=("esp32s3",), **environment):
    rows, devices = [], []
    for number, target in enumerate(targets):
        check = Check(Outcome.PASSED, 8, 8, 0, 0, None, None, "exact")
        level = sqnr_db - number
        rows.append(
            Row(
                *(f"{target}-tcn-int8-chunk3", target, "tcn", 8, 3, "simulated", Outcome.PASSED),
                checks={"streaming": check},
                accuracy=Accuracy(Outcome.PASSED, level, level, 10.0, {"y": level}),
                sqnr_db=level,
            )
        )
        devices.append(Device(target, "simulated", target.upper(), 2, "port", "ab", "1"))
    return Results(
        DATE, command="pytest", environment=environment, rows=tuple(rows), devices=tuple(devices)
    )


@pytest.fixture
def saved(tmp_path):
    def save(name, found):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(found.to_json()))
        return str(folder)

    return save


def test_equal_runs(saved, capsys):
    a, b = saved("a", results()), saved("b", results())
    assert main(["compare", a, b]) == 0
    assert capsys.readouterr().out == f"{b} against {a}: no difference\n"


def test_several_runs_and_a_page(saved, tmp_path, capsys):
    names = [saved("a", results()), saved("b", results(30.5)), saved("c", results(torch="2.13"))]
    page = tmp_path / "page.html"
    assert main(["compare", *names, "--page", str(page)]) == 1
    out = capsys.readouterr().out
    assert "REGRESSION esp32s3-tcn-int8-chunk3: SQNR, dB: 31.00 → 30.50" in out
    assert f"{names[2]} against {names[0]}: 1 change, no regressions\n  torch: - → 2.13\n" in out
    assert page.read_text().startswith("<!doctype html>")


def test_targets_of_one_run(saved, capsys):
    both = saved("both", results(targets=("esp32s3", "esp32p4")))
    assert main(["compare", both]) == 1
    assert "REGRESSION tcn-int8-chunk3: SQNR, dB: 31.00 → 30.00" in capsys.readouterr().out
    assert main(["compare", f"{both}@esp32p4", f"{both}@esp32s3"]) == 0
    assert main(["compare", both, f"{both}@esp32c3"]) == 2
    assert "has no rows of esp32c3, only of esp32s3, esp32p4" in capsys.readouterr().err


def test_runs_of_the_history(saved, tmp_path, capsys):
    file = tmp_path / "history"
    with History(file) as history:
        history.append(results())
        history.append(results(30.0))
    assert main(["compare", "1", "2", "--history", str(file)]) == 1
    assert main(["compare", "2", saved("a", results(30.0)), "--history", str(file)]) == 0
    assert main(["compare", "1", "7", "--history", str(file)]) == 2
    assert "has no run 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "x.json cannot be read: No such file or directory"),
        ("{", "x.json cannot be read: it is no JSON"),
        ("[" * 100_000, "x.json cannot be read: it is no JSON"),
        ("\xff", "x.json cannot be read: it is no JSON"),
        ("[]", "x.json cannot be read: results: schema is None, this reader knows 2"),
    ],
)
def test_what_is_no_run_is_said(saved, tmp_path, capsys, content, said):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    assert main(["compare", saved("a", results()), str(path)]) == 2
    assert said in capsys.readouterr().err


def test_one_run_of_one_target_is_not_enough(saved, capsys):
    assert main(["compare", saved("a", results())]) == 2
    assert "there is only one run" in capsys.readouterr().err


def test_history_of_runs_and_of_a_model(tmp_path, capsys):
    file, page = tmp_path / "history", tmp_path / "page.html"
    with History(file) as history:
        for level in (31.0, 31.0, 29.5):
            history.append(results(level, **{"esp-ppq": "1.3.12" if level < 30 else "1.3.11"}))
    assert main(["history", "--history", str(file)]) == 0
    assert capsys.readouterr().out.splitlines()[2] == f"     3  {DATE}  1 of 1 rows passed  pytest"
    assert main(["history", "tcn", "--history", str(file), "--page", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "esp32s3-tcn-int8-chunk3: 3 of 3 runs passed, now passed, SQNR 29.5 dB (29.5 to 31.0)"
    )
    assert lines[1] == (
        "  run 3, 2026-11-25: SQNR 31.00 → 29.50 dB; with it: esp-ppq 1.3.11 → 1.3.12"
    )
    assert "tcn over 3 runs" in page.read_text()
    assert main(["history", "gru", "--history", str(file)]) == 2
    assert "nothing of model 'gru'" in capsys.readouterr().err


def test_no_history_yet(tmp_path, capsys):
    assert main(["history", "--history", str(tmp_path / "none")]) == 2
    assert "there is no history at" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_one_message(saved, tmp_path, capsys):
    page, file = tmp_path / "nowhere" / "page.html", tmp_path / "history"
    message = f"error: cannot write {page}: No such file or directory\n"
    assert main(["compare", saved("a", results()), saved("b", results()), "--page", str(page)]) == 2
    assert capsys.readouterr().err == message
    with History(file) as history:
        history.append(results())
    assert main(["history", "tcn", "--history", str(file), "--page", str(page)]) == 2
    assert capsys.readouterr().err == message
