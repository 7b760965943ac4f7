import zlib

import numpy as np

from espdl_hil import interpreter
from espdl_hil.diagnosis.replay import HostRun, digest, shift_exponents
from espdl_hil.interpreter.node_graph import cut_node


def test_digest_is_that_of_the_bytes_on_the_wire():
    tensor = np.array([[1, -2], [300, 4]], np.int16)
    assert digest(tensor) == zlib.crc32(b"\x01\x00\xfe\xff\x2c\x01\x04\x00")
    assert digest(tensor.T) == zlib.crc32(b"\x01\x00\x2c\x01\xfe\xff\x04\x00")


def test_a_node_alone_gives_what_it_gives_in_its_graph(subjects):
    for subject in subjects.values():
        trace = HostRun(subject.graph, subject.target, {}).trace(subject.chunks[:2])[1]
        for node in subject.graph.nodes:
            if node.op_type == "StreamingCache":
                continue  # has a state
            alone = cut_node(subject.graph, node, trace)
            sources = {info.name: trace[info.name] for info in alone.inputs}
            outputs = interpreter.load(alone, subject.target).step(sources)
            assert np.array_equal(outputs[node.outputs[0]], trace[node.outputs[0]]), node


def test_other_exponents_give_other_values(subjects):
    subject = subjects["residual-chunk3.esp32s3.int8"]
    trace = HostRun(subject.graph, subject.target, {}).trace(subject.chunks[:1])[0]
    node = subject.graph.nodes[0]
    name = node.outputs[0]
    alone = shift_exponents(cut_node(subject.graph, node, trace), name, 1)
    source = node.inputs[0]
    halved = interpreter.load(alone, subject.target).step({source: trace[source]})[name]
    inside = trace[name] < 127
    assert inside.any()
    assert np.abs(trace[name].astype(int) - 2 * halved.astype(int))[inside].max() <= 1


def test_a_stream_starts_cold_after_a_reset(subjects):
    subject = subjects["stack-chunk4.esp32s3.int8"]
    stream = HostRun(subject.graph, subject.target, {})
    first = stream.run(subject.chunks)
    warm = stream.run(subject.chunks)
    stream.reset()
    again = stream.run(subject.chunks)
    name = subject.graph.outputs[0].name
    assert not np.array_equal(first[0][name], warm[0][name])
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(first, again, strict=True))
