"""Random networks: every node is within its derived bound, and the table of what that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.operators import check_graph
from espdl_hil.reference import judge, read_record

SCRIPT = Path(__file__).parent / "record_networks.py"
NETWORKS = 2
MANY_NETWORKS = 600


@dataclass
class Line:
    """What a campaign saw of one operator at one width."""

    nodes: int = 0
    elements: int = 0
    differing: int = 0
    allowed: float = 0.0
    largest: float = 0.0
    excused: int = 0

    def add(self, node):
        self.nodes += 1
        self.elements += node.elements
        self.differing += node.differing
        self.allowed += node.mean_bound * node.elements
        self.largest = max(self.largest, node.bound)
        self.excused += node.excused


class Campaign:
    """All nodes of many networks."""

    def __init__(self):
        self.lines = defaultdict(Line)
        self.networks = self.equal = self.unrunnable = 0

    def check(self, folder):
        """Judge a network.

        Raises:
            AssertionError: a node is beyond its bound, or outputs differ though no node does.
        """
        made = json.loads((folder / "made.json").read_text())
        graph, record = load_graph(folder / "offline.espdl"), read_record(folder / "reference.npz")
        with np.load(folder / "inputs.npz") as file:
            inputs = dict(file)
        try:
            check_graph(graph, made["target"])
            judged = judge(graph, made["target"], record, inputs)
        except UnsupportedOpError:  # the product goes around that, or refuses it
            self.unrunnable += 1
            return
        assert {info.name for info in graph.outputs} <= {node.tensor for node in judged}
        beyond = [str(node) for node in judged if not node.within]
        assert not beyond, (made, beyond)
        outputs = load(graph, made["target"]).step(inputs)
        if not any(node.differing or node.excused for node in judged):
            assert all(np.array_equal(v, record.values[name]) for name, v in outputs.items()), made
            self.equal += 1
        self.networks += 1
        for node in judged:
            unit = "relative" if node.is_float else "LSB"
            self.lines[node.operator, f"int{made['bits']}", unit].add(node)

    @property
    def head(self):
        return (
            f"{self.networks} networks, {self.equal} of them equal in every element, "
            f"{self.unrunnable} more that the chip cannot run, or computes wrongly"
        )

    def __str__(self):
        head = "| operator | width | nodes | elements | differ | mean bound | largest | by lanes |"
        rows = [
            f"| {operator} | {width} | {line.nodes} | {line.elements:,} | {line.differing:,} | "
            f"{line.allowed / line.elements:.2g} {unit} | {line.largest:.2g} | {line.excused:,} |"
            for (operator, width, unit), line in sorted(self.lines.items())
            if line.elements
        ]
        return "\n".join(
            [
                self.head,
                head,
                "|---" * 8 + "|",
                *rows,
            ]
        )


def run(seed, count, folder, capsys):
    command = [sys.executable, str(SCRIPT), str(seed), str(count), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=7200, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    campaign = Campaign()
    for network in sorted(folder.iterdir()):
        campaign.check(network)
    with capsys.disabled():
        print(f"\n{campaign if count > NETWORKS else campaign.head}")
    assert campaign.networks + campaign.unrunnable == count
    assert campaign.networks > count / 2
    return campaign


def test_random_networks_are_within_the_derived_bounds(tmp_path, capsys):
    campaign = run(0, NETWORKS, tmp_path, capsys)

    assert campaign.equal > 0


@pytest.mark.slow
def test_many_random_networks_are_within_the_derived_bounds(tmp_path, capsys):
    campaign = run(1000, MANY_NETWORKS, tmp_path, capsys)

    assert {"GRU", "LSTM", "LayerNormalization", "Softmax"} <= {key[0] for key in campaign.lines}
