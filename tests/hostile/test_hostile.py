"""Hostile files and bundles: documented errors alone, in bounded time and memory."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from flat_writer import FlatWriter

from espdl_hil.errors import ArtifactError
from espdl_hil.espdl import load_graph

sys.path.insert(0, str(Path(__file__).parent))

import mutations

CAMPAIGN = Path(__file__).parent / "run_campaign.py"
MAX_SECONDS = 20
# A reader keeps names, numbers and a dozen small objects for each table of 20 bytes or so; the
# raw data is not copied.
MAX_READ_FACTOR, READ_BASE = 64, 256 * 1024


@pytest.fixture
def writer():
    return FlatWriter()


@pytest.fixture(scope="module")
def sources():
    return mutations.sound_files()


def run(kind, seed, count):
    """A campaign in a small process, which forks one for each attack."""
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, CAMPAIGN, kind, str(seed), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **single})
    figures = json.loads(done.stdout)
    faults = figures.pop("faults")
    print(f"\n{kind}, seed {seed}, {count} attacks: {figures}")
    assert not faults, "\n".join(faults[:20])
    assert figures["slowest"] <= MAX_SECONDS
    return figures["outcomes"]


def test_mutated_files(sources):
    outcomes = run("model_cases:mutated", 20260617, 400)
    assert outcomes["ArtifactError"] + outcomes["refused"] > 150
    assert outcomes["ran"] > 15
    assert outcomes["uploaded"] > 6
    assert outcomes["inspected"] > 15


@pytest.mark.parametrize("ways", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_bombs(ways):
    outcomes = run("model_cases:bombs", 0, ways)
    assert outcomes["UnsupportedOpError"] > 7 * ways


def test_hostile_bundles():
    outcomes = run("bundle_cases:mutated", 7, 80)
    assert outcomes["not reproduced"] > 2
    assert outcomes["refused"] > 40


@pytest.mark.slow
def test_20000_mutated_files():
    run("model_cases:mutated", 1, 20_000)


@pytest.mark.slow
def test_2000_hostile_bundles():
    run("bundle_cases:mutated", 1, 2000)


def test_the_measure_sees_what_it_is_for():
    """The twin: memory beyond the bound, a crash, and a hang are told apart from errors."""
    outcomes = json.loads(
        subprocess.run(
            [sys.executable, CAMPAIGN, "twin_cases:cases", "0", "0"],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )
    assert outcomes["outcomes"] == {"ran": 2, "ArtifactError": 1, "wrong": 2}
    greedy, broken, endless = outcomes["faults"]
    assert greedy.startswith("greedy: ran, took ")
    assert broken == "broken: KeyError('key')"
    assert endless.startswith("endless: ended by signal 14 after ")


def test_reading_allocates_a_bounded_multiple_of_the_file(sources, writer):
    rng = np.random.default_rng(7)
    files = [*sources, table_bomb(writer)] + [mutations.mutate(sources, rng)[0] for _ in range(300)]
    for data in files:
        tracemalloc.start()
        try:
            load_graph(data, model=0)
        except ArtifactError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak <= MAX_READ_FACTOR * len(data) + READ_BASE


def table_bomb(writer):
    """A sound file with a vector of 60,000 offsets to one and the same small table."""
    graph = writer.graph()
    entry = writer.table((0, "text", "key"))
    return writer.finish((7, "table", graph), (8, "tables", [entry] * 60_000))


def test_a_long_text_that_is_listed_over_and_over_is_refused(writer):
    graph = writer.graph()
    entry = writer.table((0, "text", "k" * 4000))
    data = writer.finish((7, "table", graph), (8, "tables", [entry] * 100))
    with pytest.raises(ArtifactError, match="key of metadata 2 of model is one of too many"):
        load_graph(data)
