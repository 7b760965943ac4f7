"""The first thing that a newcomer runs."""

import pytest

from espdl_hil.cli import main
from espdl_hil.report import History


@pytest.mark.slow  # tests/report/test_browser.py proves the same model with each of its faults
@pytest.mark.parametrize(("fail", "code"), [([], 0), (["--fail"], 1)], ids=["well", "fail"])
def test_a_demo_says_what_it_found_and_appends_it_to_a_history(tmp_path, capsys, fail, code):
    report, kept = tmp_path / "report", tmp_path / "history"
    assert main(["demo", *fail, "--report", str(report), "--history", str(kept)]) == code
    said = capsys.readouterr().out
    assert f"history: run 1 in {kept}\n" in said
    assert f"report: {report / 'report.html'}" in said
    assert ("cause     weight or packing corruption" in said) == bool(code)
    with History(kept) as history:
        (run,) = history.runs(9)
    assert (run["passed"], run["total"]) == (4 - code, 4)
