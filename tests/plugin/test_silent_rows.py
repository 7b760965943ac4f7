"""A row that did not pass is no green run, whatever its tests say; what pytest tells is enough."""

import json

import pytest

SIM = ("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
ID = "esp32s3-mine-int8-chunk3"
BEGIN = """
import pytest
from espdl_hil.simulator import faults

def drop(hil):
    hil.forget()
    hil.devkit.inject(faults.StateDropped(step=2))

"""
NO_ASSERT = "def test_streams(hil):\n    drop(hil)\n    hil.stream() == hil.offline()\n"
SWALLOWED = """
def test_streams(hil):
    drop(hil)
    try:
        hil.verify()
    except AssertionError:
        pass
"""
SKIPPED = SWALLOWED.replace("pass", "pytest.skip('board busy?')")
UNEXPECTED = "@pytest.mark.xfail(strict=False)\n" + NO_ASSERT
ASSERTED_UNEQUAL = NO_ASSERT.replace("    hil.stream() ==", "    assert hil.stream() !=")
CONTROL = """
def test_omitted_reset_is_noticed(hil):
    assert hil.stream(order=hil.swapped(0, 1)) != hil.offline()

def test_streams(hil):
    assert hil.stream() == hil.offline()
"""
EXPECTED = """
@pytest.mark.xfail(reason="known")
def test_streams(hil):
    drop(hil)
    assert hil.stream() == hil.offline()

def test_afterwards(hil):
    assert hil.offline() == hil.interpreted()
"""
ALL_WELL = "def test_streams(hil):\n    hil.verify()\n"
RERUNS = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        if report.failed:
            report.outcome = "rerun"  # as pytest-rerunfailures does
        item.ihook.pytest_runtest_logreport(report=report)
    runtestprotocol(item, nextitem=nextitem)
    return True
"""
FLAKY = """
times = []

def test_streams(hil):
    times.append(1)
    hil.forget()
    hil.devkit.clear()
    if len(times) == 1:
        hil.devkit.inject(faults.StateDropped(step=2))
    hil.verify()
"""


@pytest.fixture
def run(project):
    """Run a test file; gives the result and the outcome of its one row."""

    def run(body, *arguments):
        project.write("test_mine.py", BEGIN + body)
        done = project.pytest(*SIM, *arguments)
        (row,) = json.loads((project.folder / "hil-report" / "results.json").read_text())["rows"]
        return done, row["outcome"]

    return run


@pytest.mark.parametrize(
    "body",
    [NO_ASSERT, SWALLOWED, SKIPPED, UNEXPECTED, ASSERTED_UNEQUAL],
    ids=["no assert", "swallowed", "skipped", "xpass", "asserted unequal"],
)
def test_a_row_that_failed_is_not_green_though_its_tests_passed(run, body):
    done, outcome = run(body)
    assert outcome == "failed"
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" not in done.stdout.splitlines()[-1]
    line = f"ERROR: 1 row did not pass although their tests passed: {ID}; assert each comparison"
    assert done.stdout.count(line) == 1, done.stdout


@pytest.mark.parametrize(
    ("body", "outcome"),
    [(CONTROL, "passed"), (EXPECTED, "failed"), (ALL_WELL, "passed")],
    ids=["control", "xfail", "all well"],
)
def test_what_pytest_tells_or_what_counts_for_no_number_is_green(run, body, outcome):
    done, found = run(body)
    assert found == outcome
    assert done.returncode == 0, done.stdout + done.stderr
    assert "did not pass although" not in done.stdout


def test_a_failed_test_speaks_for_its_row(run):
    done, outcome = run(NO_ASSERT + "    assert hil.stream() == hil.offline()\n")
    assert (done.returncode, outcome) == (1, "failed")
    assert "did not pass although" not in done.stdout


def test_an_expected_failure_excuses_no_other_test(run):
    done, outcome = run(
        """
@pytest.mark.xfail
def test_first(hil):
    drop(hil)
    assert hil.stream() == hil.offline()

def test_second(hil):
    hil.offline() == hil.interpreted()
    hil.stream() == hil.interpreted()
"""
    )
    assert (done.returncode, outcome) == (1, "failed")
    assert "did not pass although" in done.stdout


def test_a_rerun_that_passes_mends_no_row(project, run):
    project.write("conftest.py", RERUNS)
    done, outcome = run(FLAKY)
    assert "1 rerun" in done.stdout.splitlines()[-1]
    assert (done.returncode, outcome) == (1, "failed"), done.stdout
    assert "(a rerun mends no row)" in done.stdout
    done, outcome = run(FLAKY.replace("if len(times) == 1", "if False"))
    assert (done.returncode, outcome) == (0, "passed"), done.stdout


@pytest.mark.parametrize(
    ("asserted", "outcome"),
    [
        ("hil.stream()", "error"),
        ("hil.stream() == hil.stream()", "error"),
        ("hil.stream().match(hil.offline())", "failed"),
    ],
)
@pytest.mark.parametrize("mode", ["rewrite", "plain"])
def test_what_was_always_true_is_no_longer(run, asserted, outcome, mode):
    done, found = run(
        f"def test_streams(hil):\n    drop(hil)\n    assert {asserted}\n", f"--assert={mode}"
    )
    assert (done.returncode, found) == (1, outcome), done.stdout


MEASURED = "def test_accuracy(hil):\n    assert hil.accuracy()\n"


def test_accuracy_alone_is_no_row(project):
    """Nor with a worker; nothing was compared, so nothing passed."""
    project.write("test_mine.py", MEASURED)
    for arguments in ((), ("-n1",)):
        done = project.pytest(*SIM, "--junitxml=junit.xml", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 row" not in done.stdout
        line = f"\nno verdict: {ID}: their tests compared nothing that counts\n"
        assert done.stdout.count(line) == 1, done.stdout
        assert not (project.folder / "hil-report" / "results.json").exists()
        assert 'value="passed"' not in (project.folder / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("hil.verify", True),  # which is not called
        ("assert hil.stream(order=hil.swapped(0, 1)) != hil.offline()", True),  # a control
        ("pytest.skip('not today')", False),
        ("assert hil.stream() == hil.offline()", False),
        ("assert False", False),
    ],
)
def test_a_case_of_which_nothing_was_compared_has_no_verdict(project, body, said):
    """Beside one that has a row, which is no reason to say nothing."""
    more = 'if hil.case.target == "esp32p4":\n        hil.verify()\n        return'
    project.write("test_mine.py", f"{BEGIN}def test_streams(hil):\n    {more}\n    {body}\n")
    done = project.pytest(*SIM[::2], "--target=esp32s3|esp32p4")
    line = f"no verdict: {ID}: their tests compared nothing that counts"
    assert done.stdout.count(line) == said, done.stdout
    assert "no verdict: esp32p4" not in done.stdout


@pytest.mark.parametrize("test", [MEASURED, MEASURED.replace("assert ", "")])
def test_too_little_accuracy_alone_is_a_failed_row(project, run, test):
    model = project.folder / "mine.py"
    model.write_text(model.read_text().replace("chunk_frames", "min_sqnr_db=90, chunk_frames"))
    done, outcome = run(test)
    assert (done.returncode, outcome) == (1, "failed")
    assert ("did not pass although" in done.stdout) == (test != MEASURED)


def test_accuracy_beside_a_comparison_is_part_of_its_row(run):
    done, outcome = run(MEASURED + "    assert hil.stream() == hil.offline()\n")
    assert (done.returncode, outcome) == (0, "passed")
    assert "1 row: 1 passed" in done.stdout


@pytest.mark.parametrize(
    ("body", "code"),
    [(NO_ASSERT, 1), (EXPECTED, 0), (CONTROL, 0)],
    ids=["no assert", "xfail", "control"],
)
def test_with_workers_it_is_the_same(run, body, code):
    done, _ = run(body, "-n1")
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.count("did not pass although") == code
