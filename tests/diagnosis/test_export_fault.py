"""Wrong exports that reach a device all the same. The product refuses those that lint knows."""

from dataclasses import replace

import numpy as np
import pytest

from espdl_hil.compare import Outcome
from espdl_hil.diagnosis import Cause
from espdl_hil.diagnosis.replay import HostRun
from espdl_hil.espdl import Node, Tensor, TensorInfo
from espdl_hil.proof.explain import explain
from espdl_hil.streaming import Severity, lint


def with_node(graph, name, **changes):
    nodes = tuple(replace(n, **changes) if n.name == name else n for n in graph.nodes)
    return replace(graph, nodes=nodes)


def cached_conv(graph):
    """A cache of three frames or more, and the convolution that it feeds."""
    for cache in graph.nodes:
        if cache.op_type == "StreamingCache" and cache.attributes["window_size"] > 2:
            conv = next(n for n in graph.nodes if cache.outputs[0] in n.inputs)
            if conv.op_type == "Conv":
                return cache, conv
    raise AssertionError("no cache feeds a convolution")


def cache_missing(graph):
    """Offline padding instead of a cache."""
    cache, conv = cached_conv(graph)
    inputs = tuple(cache.inputs[0] if n == cache.outputs[0] else n for n in conv.inputs)
    pads = (cache.attributes["window_size"] - 1, *conv.attributes["pads"][1:])
    graph = with_node(graph, conv.name, inputs=inputs, attributes={**conv.attributes, "pads": pads})
    return replace(graph, nodes=tuple(n for n in graph.nodes if n.name != cache.name)), conv.name


def window_too_short(graph):
    """A cache that keeps too few frames; the rest is padded with zeros at every chunk."""
    cache, conv = cached_conv(graph)
    attributes = {**cache.attributes, "window_size": 2}
    pads = (cache.attributes["window_size"] - 2, *conv.attributes["pads"][1:])
    graph = with_node(graph, cache.name, attributes=attributes)
    return with_node(graph, conv.name, attributes={**conv.attributes, "pads": pads}), conv.name


def dilation_changed(graph):
    """Another dilation in the streaming file, with a cache that fits it."""
    cache, conv = cached_conv(graph)
    dilation = conv.attributes["dilations"][0] + 1
    window = (conv.attributes["kernel_shape"][0] - 1) * dilation + 1
    attributes = {**conv.attributes, "dilations": (dilation, *conv.attributes["dilations"][1:])}
    graph = with_node(graph, cache.name, attributes={**cache.attributes, "window_size": window})
    return with_node(graph, conv.name, attributes=attributes), conv.name


def operand_delayed(graph):
    """One operand of a sum comes a frame late, as behind a cache that is not its own."""
    node = next(n for n in graph.nodes if n.op_type == "Add")
    source = node.inputs[0]
    frames, width = graph.inputs[0].shape[1], node.attributes["quant_type"]
    attributes = {"frame_axis": 1, "window_size": 2, "quant_type": width}
    cache = Node("late", "StreamingCache", (source,), ("late_out",), attributes)
    words = {"starts": 0, "ends": frames, "axes": 1, "steps": 1}
    constants = {
        word: Tensor(TensorInfo(word, np.dtype(np.int64), (1,)), np.array([value], np.int64))
        for word, value in words.items()
    }
    cut = Node("cut", "Slice", ("late_out", *words), ("cut_out",), {"quant_type": width})
    index = graph.nodes.index(node)
    graph = with_node(graph, node.name, inputs=("cut_out", *node.inputs[1:]))
    infos = {name: replace(graph.value_info[source], name=name) for name in cut.inputs[:1]}
    infos["cut_out"] = replace(graph.value_info[source], name="cut_out")
    graph = replace(
        graph,
        nodes=(*graph.nodes[:index], cache, cut, *graph.nodes[index:]),
        value_info={**graph.value_info, **infos},
        initializers={**graph.initializers, **constants},
    )
    return graph, node.name


WRONG = [cache_missing, window_too_short, dilation_changed, operand_delayed]


@pytest.fixture(params=["stack-chunk4.esp32s3.int8", "residual-chunk3.esp32p4.int16"])
def subject(request, subjects):
    return subjects[request.param]


def exported(subject, wrong):
    try:
        return wrong(subject.graph)
    except (AssertionError, StopIteration):
        pytest.skip("this model has nothing of the kind")


@pytest.mark.parametrize("wrong", WRONG)
def test_the_node_is_named_at_which_the_stream_leaves_the_offline_model(subject, wrong):
    graph, node = exported(subject, wrong)
    observed = HostRun(graph, subject.target, {}).run(subject.chunks)
    verdict = subject.compare_offline(observed)
    assert verdict.outcome is Outcome.FAILED
    found = explain(subject.mismatch(observed, verdict, graph=graph), None)
    assert found.cause is Cause.EXPORT
    made_before = {"late", "cut", node}
    assert found.place.node in made_before
    assert "frames of its stream are no slice of the offline run" in found.explanation.facts[0]


@pytest.mark.parametrize("wrong", WRONG)
def test_lint_refuses_each_of_them_before_anything_runs(subject, wrong):
    graph, _ = exported(subject, wrong)
    findings = lint(graph, subject.offline[0], state={})
    assert any(finding.severity is Severity.ERROR for finding in findings)


def test_what_is_different_about_the_node_is_said(subjects):
    subject = subjects["stack-chunk4.esp32s3.int8"]
    graph, node = dilation_changed(subject.graph)
    observed = HostRun(graph, subject.target, {}).run(subject.chunks)
    verdict = subject.compare_offline(observed)
    facts = explain(subject.mismatch(observed, verdict, graph=graph), None).explanation.facts
    cache, conv = cached_conv(subject.graph)
    ours, theirs = conv.attributes["dilations"][0] + 1, conv.attributes["dilations"][0]
    assert conv.name == node
    assert f"dilations is ({ours},) in the streaming file, ({theirs},) in the offline file" in facts
    assert f"its input comes through {cache.name}, window " in "\n".join(facts)


def test_a_right_export_is_not_at_fault(subject):
    verdict = subject.compare_offline(subject.expected)
    assert verdict.outcome is Outcome.PASSED
    found = explain(subject.mismatch(subject.expected, verdict), None)
    assert found.cause is Cause.UNEXPLAINED
