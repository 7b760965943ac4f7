from espdl_hil.diagnosis import Cause, Diagnosis
from espdl_hil.diagnosis.cause import NEXT_STEP, Explanation, Place

PLACE = Place(2, 7, 5, "Conv", "/block/Conv", "/block/Conv_output_0")


def diagnosis(**changes):
    explanation = Explanation(
        **{"cause": Cause.ROUNDING, "facts": ("halves up", "12 tensors are right"), **changes}
    )
    return Diagnosis("tcn", "esp32s3", 8, "3 of 384 differ, max 1 LSB", PLACE, explanation)


def test_text_names_all_that_is_known():
    assert diagnosis().text == (
        "tcn on esp32s3, int8: 3 of 384 differ, max 1 LSB\n"
        "cause     rounding mode\n"
        "operator  Conv /block/Conv\n"
        "begins    chunk 2, frame 7, channel 5, tensor /block/Conv_output_0\n"
        "facts     halves up\n"
        "          12 tensors are right\n"
        "next      check that firmware and artifact are built for this chip, and how the kernel "
        "of this node rounds"
    )


def test_an_explanation_may_know_better_what_to_do():
    assert diagnosis(next_step="look there").text.endswith("next      look there")


def test_text_is_a_dozen_lines_at_most():
    text = diagnosis(facts=tuple(f"fact {n}" for n in range(40))).text
    assert len(text.splitlines()) <= 12
    assert "fact 0" in text


def test_a_place_outside_the_graph():
    found = Diagnosis("m", "esp32p4", 16, "s", Place(1), Explanation(Cause.BUFFER, ("e",)))
    assert "operator  none: outside the graph\nbegins    chunk 1\n" in found.text
    assert str(Place()) == "everywhere"


def test_json_has_every_part():
    assert diagnosis().to_json() == {
        "cause": "rounding mode",
        "chunk": 2,
        "frame": 7,
        "channel": 5,
        "operator": "Conv",
        "node": "/block/Conv",
        "tensor": "/block/Conv_output_0",
        "facts": ["halves up", "12 tensors are right"],
        "next_step": NEXT_STEP[Cause.ROUNDING],
        "text": diagnosis().text,
    }


def test_every_cause_has_a_next_step():
    assert set(NEXT_STEP) == set(Cause)
