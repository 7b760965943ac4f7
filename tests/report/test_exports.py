"""What CI and viewers get: Markdown, OpenMetrics, node data."""

import json
from dataclasses import replace

import onnx
import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.report import (
    Details,
    Latency,
    render_markdown,
    render_metrics,
    write_node_data,
)

from .conftest import one_element

FOUND = {
    "cause": "weight or packing corruption",
    "text": "long",
    "operator": "Conv",
    "node": "/a/Conv",
    "tensor": "y",
    "next_step": "flash again",
}


def test_a_summary_has_matrix_failures_and_next_step(results, make_row):
    replay = ("espdl-hil replay hil-report/repro/a.zip",)
    bad = make_row(one_element, id="bad", diagnosis=FOUND, details=Details(replay=replay))
    text = render_markdown(replace(results, rows=(*results.rows[:1], bad)))
    assert text.startswith("## 1 of 2 rows did not pass: weight or packing corruption\n")
    assert "**simulated**" in text
    assert "> Simulated devkits prove" in text
    assert "| tcn | P 3 40 dB<br>**F 3 1 LSB** |" in text
    assert "- **bad** (simulated), failed: weight or packing corruption\n" in text
    assert "  - layer: Conv `/a/Conv`\n  - next: flash again\n" in text
    assert "`espdl-hil replay hil-report/repro/a.zip`" in text
    assert "Against the run before" not in text


def test_a_summary_says_what_changed_since(results):
    assert "### Against the run before: no difference\n" in render_markdown(results, results)
    worse = replace(results, rows=(replace(results.rows[0], sqnr_db=39.0), *results.rows[1:]))
    text = render_markdown(worse, results)
    assert "Against the run before: 1 change in 1 row, 1 regression\n" in text
    assert "- REGRESSION esp32s3-tcn-int8-chunk3: SQNR, dB: 40.00 → 39.00\n" in text


def test_nothing_in_a_summary_is_markup(make_row, make_results):
    nasty = "<img src=x>|**b**\n# `c`\x1b[2J"
    text = render_markdown(make_results(make_row(one_element, id=nasty, model=nasty)))
    assert "<img" not in text.replace("\\<", "")  # each one is escaped
    assert "\x1b" not in text
    assert text.count("\n|") == 3  # head, rule, one row
    assert "\n# " not in text


def test_a_long_list_is_cut_and_says_so(make_row, make_results):
    rows = [make_row(one_element, id=f"r{number}") for number in range(70)]
    assert "- and 40 more, see report.html" in render_markdown(make_results(*rows))


def test_metrics_are_gauges_with_their_labels(results):
    lines = render_metrics(results).splitlines()
    assert lines[-1] == "# EOF"
    labels = (
        'id="esp32s3-tcn-int16-chunk3",target="esp32s3",model="tcn",bits="16",chunk_frames="3",'
        'substrate="simulated"'
    )
    said = [line for line in lines if labels in line]
    assert f'espdl_hil_outcome{{{labels},outcome="failed",cause="not diagnosed"}} 1' in said
    assert f'espdl_hil_differing_elements{{{labels},check="streaming"}} 1' in said
    assert f"espdl_hil_sqnr_db{{{labels}}} 40" in said
    assert "# UNIT espdl_hil_sqnr_db db" in lines
    assert "espdl_hil_run_duration_seconds 12.5" in lines
    assert not any(line.startswith("espdl_hil_chunk_latency") for line in lines)
    names = [line.split("{")[0].split(" ")[0] for line in lines if line[0] != "#"]
    assert names == sorted(names, key=names.index)  # samples of a family stand together
    for name in set(names):
        assert f"# TYPE {name} gauge" in lines


def test_metrics_of_a_board_have_time_in_seconds(make_row, make_results):
    row = make_row(substrate="silicon", latency_us=Latency(812.0, 820.0, 900.0, 900.0))
    text = render_metrics(make_results(row))
    assert 'statistic="median"} 0.000812\n' in text


def test_a_label_cannot_end_its_line(make_row, make_results):
    text = render_metrics(make_results(make_row(model='a"b\\c\nd')))
    assert 'model="a\\"b\\\\c\\nd"' in text


def layer(operator, node, tensor, inputs=(), **fields):
    return {
        "operator": operator,
        "node": node,
        "tensor": tensor,
        "inputs": list(inputs),
        "frames": 3,
        "keeps": 0,
        "module": "a",
        "made_up": False,
        "changes_db": 30.5,
        "clipped": 0.25,
        "saturated": 0.0,
        "output": False,
        **fields,
    }


@pytest.fixture
def drawn(make_row, make_results):
    layers = [
        layer("Input", "x", "x"),
        layer("StreamingCache", "cache", "c", [0], changes_db=None, keeps=2),
        layer("Conv", "/a/Conv", "y", [1], output=True),
    ]
    pictures = {"comparisons": [], "budget": [], "layers": layers, "latency_us": None}
    details = Details(pictures=pictures)
    row = make_row(one_element, id="a/b", diagnosis=FOUND, details=details)
    return make_results(row, make_row())


def test_node_data_has_a_value_a_node(drawn, tmp_path):
    data, graph = write_node_data(drawn, tmp_path / "new")
    assert [path.name for path in (data, graph)] == ["a_b.json", "a_b.onnx"]
    content = json.loads(data.read_text())["tcn"]
    assert content["results"] == {"x": {"value": 30.5}, "/a/Conv": {"value": 30.5}}
    assert [stop["stop"] for stop in content["gradient"]] == [0, 0.5, 1]


def test_a_graph_for_netron_has_the_quality_as_metadata(drawn, tmp_path):
    model = onnx.load(write_node_data(drawn, tmp_path)[1])
    cache, conv = model.graph.node
    assert (cache.op_type, list(cache.input), list(cache.output)) == (
        "StreamingCache",
        ["x"],
        ["c"],
    )
    told = {entry.key: entry.value for entry in conv.metadata_props}
    assert told == {
        "changes_db": "30.5",
        "clipped": "0.25",
        "frames": "3",
        "differs first": "weight or packing corruption",
    }
    assert [value.name for value in model.graph.output] == ["y"]


def test_a_folder_that_cannot_be_written_is_said(drawn, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        write_node_data(drawn, tmp_path / "taken")
