"""The exporter's log: every line it is known to write, and what an unknown one means."""

from __future__ import annotations

from pathlib import Path

import pytest

from espdl_hil.quantize.log_rules import RULES, UNKNOWN, LogLine, Meaning, classify

# One line a rule, worded as esp-ppq 1.3.12 words it.
LINES = {
    "Q101": "Operation /T_1 of type Transpose is not supported for AutoStreamingPattern. Please "
    "insert manually on variables: ['x'].",
    "Q102": "Operation /Pad of type Pad is not supported for AutoStreamingPattern. Please insert "
    "manually on variables: ['x'].",
    "Q103": "Operation /Mean of type ReduceMean operates along the frame axis (frame_axis=1, "
    "axes=[1]). AutoStreamingPattern cannot handle this automatically, please handle it manually.",
    "Q104": "Failed to insert streaming node for op /c/Conv due to invalid window size.",
    "Q105": "[1, 1] is not supported in streaming node.",
    "Q106": "Auto padding 'SAME_UPPER' is not supported in streaming node.",
    "Q107": "Unsupported padding length 6 in streaming node '/c/Conv' (type=Conv). Only 2- and "
    "4-element pads are supported.",
    "Q108": "Variable nowhere not found in graph.",
    "Q109": "Input variable x not found in graph inputs.",
    "Q201": "Can not reset Einsum:/Einsum layout",
    "Q202": "/Conv_output_0 permute do not match shape",
    "Q203": "Reize: do not support shape for [1, 2, 3, 4, 5]",
    "Q204": "Conv filter don't support 5D tensor.",
    "Q205": "input shape is None",
    "Q206": "When deploying with esp-dl, the calculation result of the /Mul(type: Mul) operator "
    "will cause an exception. Please adjust the model to ensure that (output_exponent - "
    "input0_exponent - input1_exponent) >= 0.",
    "Q207": "PPQ_Variable_3 does not bind perm parameter",
    "Q208": "PPQ_Variable_3 does not bind exponents parameter",
    "Q301": "PPQ can not merge operation /c/Conv and /bn/BatchNormalization, this is not suppose "
    "to happen with your network, network with batchnorm inside might not be able to quantize",
    "Q302": "Isolated BatchNormalization(/bn) was detected, PPQ will replace it to 1*1 Convolution",
    "Q303": "Numeric instability detected: ppq find there is a scale value < 1e-7, which probably "
    "cause numeric underflow in further computation.",
    "Q304": "Unexpected quantization state of variable w at op /c, The configuration state has",
    "Q305": 'Unexpected input value of operation /Clip, recieving "None" at its input 1',
    "Q306": "num_of_bits:8 and target:esp8266 will return TargetPlatform.FP32",
}
NODES = {
    "Q101": "/T_1",
    "Q102": "/Pad",
    "Q103": "/Mean",
    "Q104": "/c/Conv",
    "Q107": "/c/Conv",
    "Q108": "nowhere",
    "Q109": "x",
    "Q201": "/Einsum",
    "Q202": "/Conv_output_0",
    "Q206": "/Mul",
    "Q207": "PPQ_Variable_3",
    "Q208": "PPQ_Variable_3",
    "Q301": "/bn/BatchNormalization",
    "Q302": "/bn",
    "Q304": "w",
    "Q305": "/Clip",
}


def logged(text: str, level: str = "ERROR") -> str:
    return f"\r\x1b[38;5;1m[{level}][ESPDL][2026-01-31 12:00:00]: \x1b[m{text}"


def test_every_rule_has_a_line() -> None:
    assert {rule.id for rule in RULES} == set(LINES)
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_known_line_is_classified_by_its_own_rule(rule) -> None:
    (line,) = classify([logged(LINES[rule.id])], "export")
    assert (line.rule, line.meaning, line.stage) == (rule.id, rule.meaning, "export")
    assert line.node == NODES.get(rule.id, "")
    assert line.text == LINES[rule.id]


def test_a_transpose_is_a_false_alarm_and_an_unknown_operator_is_not() -> None:
    meanings = [classify([logged(LINES[rule])], "export")[0].meaning for rule in ("Q101", "Q102")]
    assert meanings == [Meaning.HARMLESS, Meaning.DOUBTFUL]


def test_an_unknown_error_is_fatal_and_an_unknown_warning_doubtful() -> None:
    error, warning = classify([logged("boo"), logged("hm", "WARNING")], "calibrate")
    assert error == LogLine(UNKNOWN, Meaning.FATAL, "ERROR", "calibrate", "", "boo")
    assert (warning.rule, warning.meaning) == (UNKNOWN, Meaning.DOUBTFUL)


def test_other_lines_are_nothing_and_repeated_lines_count_once() -> None:
    lines = [
        logged("ERROR is a word in here", "INFO"),
        "Calibration Progress(Phase 1): 100%",
        "[ERROR] without a time",
        logged("boo"),
        logged("boo"),
    ]
    assert [line.text for line in classify(lines, "export")] == ["boo"]


def test_a_line_survives_json() -> None:
    (line,) = classify([logged(LINES["Q104"])], "export")
    assert LogLine.from_json(line.to_json()) == line


def test_the_documentation_has_every_rule() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exporter-log.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| Q")]
    assert rows == [f"| {rule.id} | {rule.meaning.value} | {rule.title} |" for rule in RULES]
