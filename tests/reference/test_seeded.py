"""A rounding fault in any single node of any zoo model fails the check, which names the node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from seeding import down, off_by_one, seed, ties_otherwise

from espdl_hil.espdl import load_graph
from espdl_hil.model import load_models
from espdl_hil.operators import OPERATORS
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.reference import judge
from espdl_hil.reference.judge import SUMS
from espdl_hil.targets import DEVKIT_TARGETS

MODELS = load_models([Path(__file__).parents[2] / "models"])
CASES = [
    (name, target, bits)
    for name, model in MODELS.items()
    for target in DEVKIT_TARGETS
    for bits in model.bits
]
SOME = [case for index, case in enumerate(CASES) if index % 4 == index // 4 % 4]  # one a model


@pytest.fixture(scope="module")
def zoo():
    """The whole zoo, from the same store as the tests on devices."""
    recipes = {case: Recipe.of(MODELS[case[0]], *case[1:]) for case in CASES}
    made = prepare(list(recipes.values()), Store())
    return {case: made[recipe.key] for case, recipe in recipes.items()}


class Subject:
    """One file of the zoo, judged as often as there are faults."""

    def __init__(self, artifacts, target):
        assert isinstance(artifacts, Artifacts), artifacts
        self.target, self.artifacts = target, artifacts
        self.graph = load_graph(artifacts.offline)
        self.record, self.inputs = artifacts.recorded, artifacts.inputs_q

    def judge(self):
        return judge(self.graph, self.target, self.record, self.inputs)

    def assert_within(self):
        """Without a fault no node is beyond its bound, and every output was judged."""
        judged = self.judge()
        assert [str(node) for node in judged if not node.within] == []
        assert {info.name for info in self.graph.outputs} <= {node.tensor for node in judged}

    def nodes(self):
        """Nodes that compute, and whose result the reference has."""
        return [
            node
            for node in self.graph.nodes
            if node.outputs[0] in self.record.values
            and not OPERATORS[node.op_type].by_tensor  # those move elements
            and self.record.values[node.outputs[0]].dtype.kind in "if"
        ]

    def found(self, fault, node):
        """Whether a fault in *node* is found there, and nowhere before it."""
        with pytest.MonkeyPatch.context() as patch:
            seed(patch, node, fault)
            beyond = [judged for judged in self.judge() if not judged.within]
        return bool(beyond) and beyond[0].node == node.name


def faults_of(node):
    return [off_by_one, down] if node.op_type in SUMS else [off_by_one]


@pytest.mark.parametrize("case", SOME, ids=["-".join(map(str, case)) for case in SOME])
def test_nodes_are_within_their_bounds_until_one_has_a_fault(zoo, case):
    subject = Subject(zoo[case], case[1])
    subject.assert_within()
    nodes = subject.nodes()

    for node in (nodes[0], nodes[len(nodes) // 2], nodes[-1]):
        for fault in faults_of(node):
            assert subject.found(fault, node), (node.name, fault.__name__)


@pytest.mark.slow
def test_a_fault_in_any_node_is_found(zoo, capsys):
    seeded = 0
    for case in CASES:
        subject = Subject(zoo[case], case[1])
        subject.assert_within()
        for node in subject.nodes():
            for fault in faults_of(node):
                assert subject.found(fault, node), (case, node.name, fault.__name__)
                seeded += 1
    with capsys.disabled():
        print(f"\n{seeded} faults in {len(CASES)} files, each found at its node")


@pytest.mark.slow
def test_halves_rounded_as_the_other_target_does_are_found(zoo, capsys):
    """Wherever that changes an element at all: what float32 may decide is no half."""
    found = silent = 0
    for case in CASES:
        subject = Subject(zoo[case], case[1])
        before = {judged.tensor: judged.differing for judged in subject.judge()}
        for node in (n for n in subject.nodes() if n.op_type in (*SUMS, "AveragePool", "Mul")):
            with pytest.MonkeyPatch.context() as patch:
                seed(patch, node, ties_otherwise)
                after = {judged.tensor: judged for judged in subject.judge()}
            of_node = after[node.outputs[0]]
            if of_node.differing == before[node.outputs[0]]:
                silent += 1
                continue
            assert not of_node.within, (case, node.name)
            found += 1
    with capsys.disabled():
        print(f"\n{found} nodes with halves, each found; {silent} without a half in the stimulus")
    assert found


def test_bounds_are_for_operators_that_round_floats():
    from espdl_hil.reference import ROUNDS_FLOATS
    from espdl_hil.reference.steps import BOUNDS, FLOORS

    assert {*BOUNDS, *FLOORS} == ROUNDS_FLOATS
    assert set(OPERATORS) >= ROUNDS_FLOATS


def test_a_record_is_what_was_written(zoo, tmp_path):
    from espdl_hil.reference import RECORD, read_record, write_record

    record = zoo[CASES[0]].recorded
    write_record(record, tmp_path / RECORD)

    again = read_record(tmp_path / RECORD)

    assert again.values.keys() == record.values.keys()
    assert all(np.array_equal(again.values[name], value) for name, value in record.values.items())
