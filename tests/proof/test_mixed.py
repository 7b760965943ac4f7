"""Layers of both widths in one network, through firmware core and simulated devkit."""

from __future__ import annotations

from espdl_hil import verify
from espdl_hil.espdl import load_graph
from espdl_hil.model import load_model
from espdl_hil.quantize import Recipe, Store, prepare

TARGETS = ("esp32s3", "esp32p4")
WIDE = {"/Add": 16, "conv": 16}  # the Add loses most at 8 bits; a cache feeds the convolution


def test_the_worst_layer_at_16_bits_streams_with_0_differ(model_file, tmp_path):
    mixed, store = tmp_path / "mixed.py", tmp_path / "store"
    given = f"targets={TARGETS}, quantization=Quantization(layer_bits={WIDE})"
    mixed.write_text(
        model_file.read_text()
        .replace("import StreamingModel", "import Quantization, StreamingModel")
        .replace('targets=("esp32s3",)', given)
    )

    result = verify(mixed, TARGETS, store=store, report=tmp_path / "report")

    assert result, result.explanations
    assert [row.target for row in result.rows] == list(TARGETS)
    checks = [check for row in result.rows for check in row.checks.values()]
    assert {check.outcome for check in checks} == {"passed"}
    assert {check.differing for check in checks} == {0}
    recipes = [Recipe.of(load_model(mixed), target, 8) for target in TARGETS]
    for made in prepare(recipes, Store(store)).values():
        nodes = load_graph(made.streaming[3]).nodes
        wide = {node.name for node in nodes if node.attributes["quant_type"] == "S16"}
        assert {"/Add", "/conv/Conv"} <= wide
        assert {node.attributes["quant_type"] for node in nodes} == {"S8", "S16"}
        (cache,) = [node for node in nodes if node.op_type == "StreamingCache"]
        assert cache.attributes["quant_type"] == "S16"  # it feeds that layer
