from types import SimpleNamespace

import pytest

from espdl_hil.diagnosis import Cause, Diagnosis
from espdl_hil.diagnosis.cause import NEXT_STEP, Explanation, Place
from espdl_hil.espdl import Node

PLACE = Place(2, 7, 5, "Conv", "/block/Conv", "/block/Conv_output_0", "block")


def diagnosis(**changes):
    explanation = Explanation(
        **{"cause": Cause.ROUNDING, "facts": ("halves up", "12 tensors are right"), **changes}
    )
    return Diagnosis("tcn", "esp32s3", 8, "3 of 384 differ, max 1 LSB", PLACE, explanation)


def test_text_names_all_that_is_known():
    assert diagnosis().text == (
        "tcn on esp32s3, int8: 3 of 384 differ, max 1 LSB\n"
        "cause     rounding mode\n"
        "operator  Conv /block/Conv, module block\n"
        "begins    chunk 2, frame 7 of the tensor, channel 5; tensor /block/Conv_output_0\n"
        "facts     halves up\n"
        "          12 tensors are right\n"
        "next      check that firmware and artifact are built for this chip, and how the kernel "
        "of this node rounds"
    )


def test_an_explanation_may_know_better_what_to_do():
    assert diagnosis(next_step="look there").text.endswith("next      look there")


def test_a_name_that_only_the_exporter_knows_is_not_shown():
    place = Place(2, 10, 0, "StreamingCache", "/a/Conv_0_cache", "PPQ_Variable_3")
    text = Diagnosis("m", "esp32s3", 8, "s", place, Explanation(Cause.DROPPED, ("f",))).text
    assert "operator  StreamingCache /a/Conv_0_cache\n" in text
    assert "begins    chunk 2, frame 10 of the tensor, channel 0\n" in text


def test_a_frame_of_the_output_is_told_from_one_of_a_tensor():
    assert str(Place(1, 3, 2)) == "chunk 1, frame 3 of the output, channel 2"


@pytest.mark.parametrize(
    ("operator", "node", "module"),
    [
        ("Conv", "/blocks/blocks.1/point/Conv", "blocks.1.point"),
        ("Swish", "/gate/Sigmoid/Swish", "gate"),
        ("Add", "/Add", ""),
        ("Gemm", "PPQ_Operation_3", ""),
        ("Gemm", "Gemm_1", "mask"),
        ("Transpose", "/a/Conv.front", ""),
        ("StreamingCache", "/a/Relu_output_0_/b/Conv_0_cache", ""),
    ],
)
def test_the_authors_module_of_a_node(operator, node, module):
    graph = SimpleNamespace(initializers={"onnx::MatMul_54": None, "mask.bias": None})
    of = Node(node, operator, ("x", *graph.initializers), ("y",))
    assert Place.at(graph, of, "y", 3) == Place(3, None, None, operator, node, "y", module)


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
        "module": "block",
        "facts": ["halves up", "12 tensors are right"],
        "next_step": NEXT_STEP[Cause.ROUNDING],
        "text": diagnosis().text,
    }


def test_every_cause_has_a_next_step():
    assert set(NEXT_STEP) == set(Cause)
