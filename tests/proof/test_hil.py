"""Runs of one case on a simulated devkit: compared with ==, noted, explained."""

from dataclasses import replace

import pytest

from espdl_hil.compare import NotComparableError, Outcome
from espdl_hil.device.errors import StaleArtifactError
from espdl_hil.proof import ledger
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.run import Run, VerificationError
from espdl_hil.quantize import Artifacts, LogLine, Meaning
from espdl_hil.report import read_repro, render_html, validate_results
from espdl_hil.simulator import faults


def numbers(row):
    return {name: (str(c.outcome), c.compared, c.differing) for name, c in row.checks.items()}


ALL_EQUAL = {
    "streaming": ("passed", 48, 0),
    "interpreter": ("passed", 96, 0),
    "reference": ("passed", 48, 0),
}


# -- what is equal ----------------------------------------------------------------------


def test_a_sound_device_passes_every_check(proof, book):
    assert proof.stream() == proof.offline()
    assert proof.stream() == proof.interpreted()
    assert proof.offline() == proof.reference()
    row = book.row(proof.case)
    assert numbers(row) == ALL_EQUAL
    assert (row.outcome, row.chunks, row.frames, row.substrate) == ("passed", 4, 12, "simulated")
    assert set(row.artifacts) == {"residual-int8-chunk3", "residual-int8-offline", "app"}
    assert book.explain(proof.case) == []
    validate_results(book.results.to_json())


def test_a_row_says_what_the_exporter_doubts_and_no_false_alarm(proof, book, monkeypatch):
    lines = [
        LogLine("Q305", Meaning.HARMLESS, "WARNING", "export", "", "an input is None"),
        LogLine("Q304", Meaning.DOUBTFUL, "WARNING", "export", "", "no range"),
    ]
    monkeypatch.setattr(Artifacts, "log", lines)
    proof.verify()
    assert book.results.rows[0].details.notes == ("esp-ppq: no range",)


def test_verify_is_all_three(proof, book):
    proof.verify()
    assert numbers(book.row(proof.case)) == ALL_EQUAL


def test_either_side_may_come_first(proof, book):
    assert proof.offline() == proof.stream()
    assert proof.interpreted() == proof.stream()
    assert proof.reference() == proof.offline()
    assert (proof.offline() != proof.stream()) is False
    assert numbers(book.row(proof.case)) == ALL_EQUAL


def test_a_run_is_made_once_until_it_is_forgotten(proof, book):
    stream = proof.stream()
    assert proof.stream() is stream
    assert Hil(proof.case, book).stream() is stream
    proof.forget()
    assert proof.stream() is not stream


def test_a_row_without_a_check_is_no_row(proof, book):
    proof.stream()
    proof.offline()
    assert book.row(proof.case) is None
    assert book.results.rows == ()


def test_one_check_alone_makes_a_row(proof, book):
    assert proof.offline() == proof.reference()
    assert numbers(book.row(proof.case)) == {"reference": ("passed", 48, 0)}


# -- controls ---------------------------------------------------------------------------


def test_controls_are_noticed_and_count_for_no_number(proof, book):
    assert proof.stream(order=proof.swapped(0, 1)) != proof.offline()
    assert proof.stream(reset=False) != proof.offline()
    assert proof.stream(artifact=proof.flipped_weight()) != proof.offline()
    assert proof.stream(artifact=proof.flipped_weight()) != proof.interpreted()
    assert book.row(proof.case) is None
    proof.verify()
    assert numbers(book.row(proof.case)) == ALL_EQUAL


def test_what_a_control_leaves_as_it_was_is_equal(proof):
    assert proof.stream(order=proof.swapped(1, 1)) == proof.offline()
    assert proof.stream(after=2) == proof.stream()
    assert proof.stream(beside=proof.neighbour()) == proof.stream()
    same = proof.expected.streaming_path.read_bytes()
    assert proof.stream(artifact=same) == proof.offline()
    assert proof.stream(artifact=same, upload=False) == proof.offline()


def test_another_build_than_the_one_in_flash_is_refused(proof):
    with pytest.raises(StaleArtifactError, match="residual-int8-chunk3"):
        proof.stream(artifact=proof.flipped_weight(), upload=False)


# -- what is always true ------------------------------------------------------------------


def test_a_run_is_neither_right_nor_wrong(proof, book):
    """Even one of a device that is wrong would be true."""
    proof.devkit.inject(faults.StateDropped(step=2))
    for run in (proof.stream(), proof.offline(), proof.interpreted(), proof.reference()):
        with pytest.raises(NotComparableError, match=r"neither right nor wrong\n.*compare it"):
            assert run
    assert book.row(proof.case) is None
    assert proof.stream() != proof.offline()


def test_a_match_is_its_verdict(proof, book):
    assert proof.stream().match(proof.offline())
    assert proof.stream().match(proof.interpreted())
    assert not proof.stream(order=proof.swapped(0, 1)).match(proof.offline())
    proof.forget()
    proof.devkit.inject(faults.StateDropped(step=2))
    assert not proof.stream().match(proof.offline())
    assert not proof.stream().match(proof.interpreted())
    assert book.row(proof.case) is None


def test_a_run_is_not_compared_with_itself(proof, book):
    for kept in (proof.stream, proof.offline):
        for compare in (lambda run: run() == run(), lambda run: run() != run()):
            with pytest.raises(NotComparableError, match=r"itself: .* once.*\n.*hil.forget"):
                compare(kept)
    with pytest.raises(NotComparableError, match="itself"):
        assert proof.stream().match(proof.stream())
    first = proof.stream()
    proof.forget()
    assert first == proof.stream()
    proof.forget()
    proof.devkit.inject(faults.StateDropped(step=2))
    assert first != proof.stream()
    assert book.row(proof.case) is None  # of two streams alone no check is made


def test_a_reset_that_does_nothing_is_noticed(proof):
    assert proof.stream(after=2) == proof.stream()
    proof.devkit.inject(faults.StateKept())
    assert proof.stream(after=2) != proof.stream()


def test_two_equal_runs_where_a_difference_was_asked_for_say_what_is_equal(proof):
    stream = proof.stream(order=proof.swapped(1, 1))
    assert stream.explain(proof.offline()) == ["all that was compared is equal: all 48 equal"]


def test_a_controls_difference_is_said_without_a_diagnosis(proof, monkeypatch):
    monkeypatch.setattr(ledger, "diagnose_comparison", None)  # calling it would raise
    (line,) = proof.stream(order=proof.swapped(0, 1)).explain(proof.offline())
    assert line.startswith("the stream differs from the offline run: ")
    assert " of 48 differ, max " in line


def test_the_neighbour_is_another_model_if_there_is_one(proof, rig, monkeypatch):
    assert proof.neighbour() == proof.case
    other = type(proof.case)("esp32s3", type("Other", (), {"name": "other"})(), 8, 3)
    monkeypatch.setattr(rig, "cases", (proof.case, other))
    assert proof.neighbour() is other


# -- what differs -----------------------------------------------------------------------


def test_a_device_that_rounds_wrongly_shows_its_own_differences(proof, book):
    """Both its runs are wrong alike, so that the stream equals the offline run."""
    proof.devkit.inject(faults.WrongRounding())
    assert proof.stream() == proof.offline()
    assert proof.stream() != proof.interpreted()
    assert proof.offline() != proof.reference()
    row = book.row(proof.case)
    assert row.outcome == "failed"
    assert row.checks["streaming"].differing == 0
    wrong = row.checks["interpreter"]
    assert wrong.differing > 0
    assert wrong.max_lsb == 1
    assert wrong.first is not None
    assert row.differing == wrong.differing + row.checks["reference"].differing
    assert any(chunk.differing for chunk in row.details.per_chunk["interpreter"])
    assert not any(chunk.differing for chunk in row.details.per_chunk["streaming"])
    content = book.results.to_json()
    validate_results(content)
    assert content["rows"][0]["checks"]["interpreter"]["differing"] == wrong.differing
    assert f"{row.differing:,} differ." in render_html(book.results)


def test_a_failed_row_stays_failed_when_it_passes_later(proof, book):
    proof.devkit.inject(faults.StateDropped(step=2))
    assert proof.stream() != proof.offline()
    failed = book.row(proof.case)
    proof.devkit.clear()
    proof.forget()
    proof.verify()
    row = book.row(proof.case)
    assert row.outcome == "failed"
    assert row.checks["streaming"] == failed.checks["streaming"]
    assert row.checks["interpreter"].outcome == "passed"
    assert row.details.per_chunk["streaming"] == failed.details.per_chunk["streaming"]


def test_what_should_have_been_equal_is_explained(proof, book):
    proof.devkit.inject(faults.StateDropped(step=2))
    left, right = proof.stream(), proof.offline()
    assert left != right
    lines = left.explain(right)
    assert lines[0] == f"{proof.case.id}: the stream differs from the offline run"
    text = "\n".join(lines)
    assert "\ncause     state dropped\n" in text
    assert "\nnext      " in text
    assert "\nreplay    espdl-hil replay " in text
    row = book.row(proof.case)
    assert row.diagnosis["cause"] == "state dropped"
    assert row.reason == "state dropped"
    assert lines[-1] == f"replay    {row.details.replay[0]}"
    bundle = read_repro(type(proof.expected.streaming_path)(row.details.replay[0].split()[-1]))
    assert bundle.substrate == "simulated"
    assert bundle.judge(bundle.observed).differing == row.checks["streaming"].differing


def test_a_wrong_offline_run_is_looked_into_first(proof):
    proof.devkit.inject(faults.WrongRounding())
    lines = proof.offline().explain(proof.reference())
    assert lines[0] == f"{proof.case.id}: the offline run differs from the exporter's reference"
    assert "cause     rounding mode" in lines


def test_a_node_off_the_reference_fails_the_row_and_is_named(proof, book, monkeypatch):
    """The device is right by its file: it is the file, or the interpreter, that is not."""
    found = proof.expected.judged
    wrong = replace(found[1], beyond=3, first="element [0, 0, 0]: the file gives 5")
    monkeypatch.setitem(vars(proof.expected), "judged", (found[0], wrong, *found[2:]))

    with pytest.raises(VerificationError, match=f"{wrong.node}.*the file gives 5"):
        proof.verify()

    row = book.row(proof.case)
    assert row.outcome == row.checks["reference"].outcome == "failed"
    assert row.checks["reference"].differing == 0
    assert wrong.node in row.reason
    validate_results(book.results.to_json())


def test_every_tolerance_in_force_is_kept(proof, book):
    proof.verify()

    entries = {
        (entry.check, entry.kind): entry for entry in book.row(proof.case).details.tolerances
    }

    assert list(entries) == [(name, "default") for name in ALL_EQUAL]
    assert {entry.allowed for entry in entries.values()} == {"exact"}
    assert all(entry.reason and not entry.used for entry in entries.values())
    kept = book.results.to_json()["rows"][0]["details"]["tolerances"]
    assert [entry["check"] for entry in kept] == [check for check, _ in entries]
    again = type(book.row(proof.case)).from_json(book.row(proof.case).to_json())
    assert again.details.tolerances == book.row(proof.case).details.tolerances


def test_diagnosing_is_done_once(proof, book, monkeypatch):
    calls = []
    diagnose = ledger.diagnose_comparison
    monkeypatch.setattr(ledger, "diagnose_comparison", lambda *a: calls.append(a) or diagnose(*a))
    proof.devkit.inject(faults.StateDropped(step=2))
    assert proof.stream() != proof.offline()
    first = proof.stream().explain(proof.offline())
    assert Hil(proof.case, book).stream().explain(proof.offline()) == first
    with pytest.raises(VerificationError):
        proof.verify()
    assert len(calls) == 1
    assert len(book.row(proof.case).details.replay) == 1


def test_a_difference_that_nobody_asked_about_is_explained_at_the_end(proof, book):
    proof.devkit.inject(faults.StateDropped(step=2))
    assert proof.stream() != proof.offline()
    assert "cause     state dropped" in book.explain(proof.case)
    assert book.explain(proof.case) == []


def test_what_was_explained_is_not_explained_again(proof, book):
    proof.devkit.inject(faults.StateDropped(step=2))
    assert proof.stream() != proof.offline()
    proof.stream().explain(proof.offline())
    assert book.explain(proof.case) == []


def test_verify_makes_all_checks_before_it_fails(proof, book):
    proof.devkit.inject(faults.StateDropped(step=2))
    with pytest.raises(VerificationError) as failure:
        proof.verify()
    assert isinstance(failure.value, AssertionError)
    row = book.row(proof.case)
    outcomes = {name: str(check.outcome) for name, check in row.checks.items()}
    assert outcomes == {"streaming": "failed", "interpreter": "failed", "reference": "passed"}
    lines = str(failure.value).splitlines()
    assert lines[0] == (
        f"{proof.case.id}: the stream differs from the offline run; "
        "the stream differs from the interpreter's"
    )
    assert lines[-1].startswith("replay    espdl-hil replay ")
    assert len(lines) <= 12
    assert book.explain(proof.case) == []


def test_each_failure_of_a_row_has_its_own_bundle(proof, book):
    for step in (1, 2):
        proof.forget()
        proof.devkit.clear()
        proof.devkit.inject(faults.StateDropped(step=step))
        with pytest.raises(VerificationError):
            proof.verify()
    bundles = [command.split()[-1] for command in book.row(proof.case).details.replay]
    assert len(set(bundles)) == 2


def test_an_output_that_was_not_written_fails_though_it_may_be_equal(proof, book, monkeypatch):
    stream = proof.stream()
    stream.steps = [*stream.steps[:-1], replace_unwritten(stream.steps[-1])]
    assert stream != proof.offline()
    check = book.row(proof.case).checks["streaming"]
    assert (check.outcome, check.differing) == ("failed", 0)
    assert check.error == "chunk 3: 12 bytes of output output from byte 0 were not written"
    validate_results(book.results.to_json())


def replace_unwritten(step):
    from dataclasses import replace

    from espdl_hil.device.tensors import Unwritten

    return replace(step, unwritten=Unwritten(1, "output", 0, 12))


# -- what cannot be compared --------------------------------------------------------------


@pytest.mark.parametrize("operator", [lambda a, b: a == b, lambda a, b: a != b])
def test_a_run_that_is_too_short_is_neither_equal_nor_unequal(proof, operator):
    short = proof.stream(order=[0, 1])
    with pytest.raises(NotComparableError, match="stream ends after 2"):
        operator(short, proof.offline())


@pytest.mark.parametrize("operator", [lambda a, b: a == b, lambda a, b: a != b])
def test_nothing_is_neither_equal_nor_unequal(proof, operator):
    empty = [{"output": step[:, :0]} for step in (s["output"] for s in proof.stream().outputs)]
    role, book = proof.stream().role, proof.stream()._ledger
    none, other = (Run(role, empty, book, plain=False) for _ in range(2))
    with pytest.raises(NotComparableError, match="not compared: no elements"):
        operator(none, other)


def test_what_could_not_be_compared_is_an_error_of_its_row(proof, book):
    proof.stream().outputs = proof.stream().outputs[:2]
    with pytest.raises(NotComparableError):
        _ = proof.stream() == proof.offline()
    row = book.row(proof.case)
    assert row.outcome == "error"
    check = row.checks["streaming"]
    assert (check.elements, check.compared) == (48, 24)
    validate_results(book.results.to_json())


def test_verify_makes_the_other_checks_when_one_cannot_be_made(proof, book):
    proof.stream().outputs = proof.stream().outputs[:2]
    with pytest.raises(NotComparableError, match="stream ends after 2"):
        proof.verify()
    assert book.row(proof.case).checks["reference"].outcome == "passed"


@pytest.mark.parametrize(
    "pair",
    [
        lambda proof: (proof.stream(), proof.reference()),
        lambda proof: (proof.interpreted(), proof.reference()),
        lambda proof: (proof.reference(), proof.reference()),
        lambda proof: (proof.stream(), proof.stream().outputs),
        lambda proof: (None, proof.stream()),
    ],
)
@pytest.mark.parametrize("operator", [lambda a, b: a == b, lambda a, b: a != b])
def test_what_does_not_belong_together_says_what_does(proof, pair, operator):
    with pytest.raises(TypeError, match=r"compare hil.stream\(\) with hil.offline\(\) or "):
        operator(*pair(proof))


def test_runs_of_two_cases_are_not_compared(proof, book):
    case = type(proof.case)("esp32s3", proof.case.model, 8, 6)
    other = Run(
        proof.stream().role, [], type("Of", (), {"expected": type("E", (), {"case": case})})()
    )
    with pytest.raises(TypeError, match="are of two cases and cannot be compared"):
        _ = proof.stream() == other


def test_a_run_cannot_be_hashed(proof):
    with pytest.raises(TypeError, match="unhashable"):
        hash(proof.stream())


# -- outcomes of tests ---------------------------------------------------------------------


def test_the_worst_outcome_stays_with_its_reason(proof, book):
    book.note_outcome(proof.case, Outcome.PASSED, "")
    assert book.row(proof.case) is None
    book.note_outcome(proof.case, Outcome.FAILED, "a flipped bit went unseen")
    book.note_outcome(proof.case, Outcome.FAILED, "another test")
    proof.verify()
    row = book.row(proof.case)
    assert (row.outcome, row.details.error) == ("failed", "a flipped bit went unseen")
    book.note_outcome(proof.case, Outcome.ERROR, "no reply")
    book.note_outcome(proof.case, Outcome.FAILED, "later")
    row = book.row(proof.case)
    assert (row.outcome, row.details.error) == ("error", "no reply")
    assert numbers(row) == ALL_EQUAL
    validate_results(book.results.to_json())


def test_incidents_are_kept(proof, book, rig):
    before = len(rig.incidents)  # of other tests with this device
    proof.devkit.inject(faults.Panic(after_bytes=600))
    proof.verify()
    (incident,) = book.results.incidents[before:]
    assert (incident.target, incident.outcome) == ("esp32s3", "recovered")
    assert book.row(proof.case).outcome == "passed"
    assert len(book.results.devices) == 2, "each boot is a device of its own"
