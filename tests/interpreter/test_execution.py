"""What an execution accepts, returns and refuses."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from espdl_hil.errors import ArtifactError, ConfigError, UnsupportedOpError
from espdl_hil.espdl import load_graph, write_package
from espdl_hil.interpreter import load


@pytest.fixture(scope="module")
def tcn(golden):
    return golden("tcn_res.esp32s3.int8")[0]


@pytest.fixture
def execution(tcn):
    return load(tcn, "esp32s3")


@pytest.fixture
def feeds(execution, rng):
    return {
        info.name: rng.integers(-128, 128, info.shape).astype(info.dtype)
        for info in execution.inputs
    }


def test_a_file_bytes_a_package_and_a_graph_are_the_same(golden, tcn, feeds, tmp_path):
    path = tmp_path / "tcn.espdl"
    path.write_bytes(tcn)
    package = write_package([("other", golden("mul.esp32s3.int8")[0]), ("tcn", tcn)])
    results = [
        load(path, "esp32s3").step(feeds),
        load(tcn, "esp32s3").step(feeds),
        load(package, "esp32s3", model="tcn").step(feeds),
        load(load_graph(tcn), "esp32s3").step(feeds),
    ]
    for result in results[1:]:
        assert all(np.array_equal(result[name], results[0][name]) for name in results[0])


def test_describes_itself(execution):
    assert [info.name for info in execution.inputs] == list(load_graph_inputs(execution))
    for info in (*execution.inputs, *execution.outputs):
        assert execution.exponents[info.name] == info.exponents
    assert {info.name for info in execution.outputs} <= execution.trace.keys()


def load_graph_inputs(execution):
    return execution._feeds


def test_outputs_are_copies_and_the_trace_is_not(execution, feeds):
    first = execution.step(feeds)
    name = execution.outputs[0].name
    kept, seen = first[name].copy(), execution.trace[name]
    execution.step({key: -1 - value for key, value in feeds.items()})
    assert np.array_equal(first[name], kept)
    assert not np.array_equal(seen, kept)
    assert all(value.flags.c_contiguous for value in execution.trace.values())


def test_steps_do_not_depend_on_earlier_ones_without_a_cache(execution, feeds):
    first = execution.step(feeds)
    execution.step({key: -1 - value for key, value in feeds.items()})
    again = execution.step(feeds)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_wider_integers_in_range_are_taken(execution, feeds):
    wide = {name: value.astype(np.int64) for name, value in feeds.items()}
    assert all(
        np.array_equal(a, b)
        for a, b in zip(execution.step(wide).values(), execution.step(feeds).values(), strict=True)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: {}, "expected the inputs"),
        (lambda f: {**f, "extra": np.zeros(1)}, "expected the inputs"),
        (lambda f: {k: v[:, :-1] for k, v in f.items()}, "has shape"),
        (lambda f: {k: v.astype(np.float32) for k, v in f.items()}, "takes int8, got float32"),
        (lambda f: {k: v.astype(np.int16) + 300 for k, v in f.items()}, "got values from"),
    ],
)
def test_refuses_wrong_inputs(execution, feeds, change, message):
    with pytest.raises(ConfigError, match=message):
        execution.step(change(feeds))


def test_runs_at_other_lengths(tcn, execution, feeds):
    info = execution.inputs[0]
    shape = (1, info.shape[1] // 2, *info.shape[2:])
    short = load(tcn, "esp32s3", input_shapes={info.name: shape})
    assert short.inputs[0].shape == shape
    head = feeds[info.name][:, : shape[1]]
    result = short.step({info.name: np.ascontiguousarray(head)})
    name = execution.outputs[0].name
    whole = execution.step(feeds)[name]
    assert np.array_equal(result[name], whole[:, : result[name].shape[1]])  # the network is causal


def test_unknown_names_are_config_errors(tcn):
    with pytest.raises(ConfigError, match="unknown target"):
        load(tcn, "esp32c6")
    with pytest.raises(ConfigError, match="no graph input"):
        load(tcn, "esp32s3", input_shapes={"nothing": (1, 2, 3)})


def test_a_damaged_file_is_an_artifact_error(tcn):
    with pytest.raises(ArtifactError):
        load(tcn[: len(tcn) // 2], "esp32s3")


def test_a_session_can_move_to_another_thread(execution, feeds):
    results = []
    thread = threading.Thread(target=lambda: results.append(execution.step(feeds)))
    thread.start()
    thread.join()
    assert all(np.array_equal(results[0][k], v) for k, v in execution.step(feeds).items())


def test_what_would_hang_the_chip_names_the_node(golden, monkeypatch):
    from espdl_hil.operators import numeric

    execution = load(golden("reducel2.esp32s3.int8")[0], "esp32s3")
    feeds = {info.name: np.ones(info.shape, info.dtype) for info in execution.inputs}
    monkeypatch.setattr(numeric, "HALF", np.float32(-0.5))
    with pytest.raises(UnsupportedOpError, match=r"ReduceL2 '.*': .*would hang"):
        execution.step(feeds)


def test_a_tcn_chunk_steps_within_a_millisecond(golden):
    from timeit import repeat

    execution = load(golden("stream_residual.streaming.esp32s3.int8")[0], "esp32s3")
    feeds = {info.name: np.ones(info.shape, info.dtype) for info in execution.inputs}
    best = min(repeat(lambda: execution.step(feeds), number=20, repeat=20)) / 20
    assert best < 1e-3
