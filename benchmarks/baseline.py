"""False alarms and detections of the latency baseline, on recorded noise.

    python benchmarks/baseline.py --record tests/report/latency_noise.json   # time this host
    python benchmarks/baseline.py                                            # 1,000 trials

A trial takes medians of runs from the recording: once mixed, so that only chance tells them apart,
and once as they followed each other, so that what drifts on the host counts as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path

import numpy as np

from espdl_hil.report.baseline import RowChange, judge_latency

NOISE = Path(__file__).parents[1] / "tests" / "report" / "latency_noise.json"
CHUNKS, RUNS, TRIALS = 16, 600, 1000


def record(path: Path) -> None:
    """Write the median time of a chunk, of each of many runs of one calculation on this host."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-128, 128, (64, 192)).astype(np.int32)
    chunk = rng.integers(-128, 128, (192, 96)).astype(np.int32)
    medians = []
    for _ in range(RUNS):
        times = []
        for _ in range(CHUNKS):
            start = time.perf_counter()
            weights @ chunk
            times.append(1e6 * (time.perf_counter() - start))
        medians.append(round(statistics.median(times), 1))
    what = (
        f"median of {CHUNKS} chunks a run, int32 64x192x96, NumPy on {platform.machine()}, shared"
    )
    path.write_text(json.dumps({"what": what, "medians_us": medians}) + "\n")


def alarms(
    medians: list[float],
    runs: int,
    *,
    mixed: bool,
    factor: float = 1.0,
    trials: int = TRIALS,
    seed: int = 1,
) -> tuple[int, int]:
    """Trials that were called slower, and faster."""
    rng = random.Random(seed)
    counts = dict.fromkeys(RowChange, 0)
    for _ in range(trials):
        if mixed:
            taken = rng.sample(medians, 2 * runs)
        else:
            at = rng.randrange(len(medians) - 2 * runs)
            taken = medians[at : at + 2 * runs]
        after = [factor * value for value in taken[runs:]]
        counts[judge_latency(taken[:runs], after)[0]] += 1
    return counts[RowChange.SLOWER], counts[RowChange.FASTER]


def main() -> None:
    """Record, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.record:
        record(options.record)
        return
    noise = json.loads(NOISE.read_text())
    print(f"{noise['what']}; {len(noise['medians_us'])} runs, {TRIALS} trials each")
    print("runs  slower by  called slower: mixed  in order")
    for runs in (5, 8, 10):
        for percent in (0, 5, 20, 50, 100):
            found = [
                alarms(noise["medians_us"], runs, mixed=mixed, factor=1 + percent / 100)[0]
                for mixed in (True, False)
            ]
            print(f"{runs:>4}  {percent:>7} %  {found[0]:>20}  {found[1]:>8}")


if __name__ == "__main__":
    main()
