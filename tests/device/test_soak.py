"""A long stream: memory and latency stay what they were, on the host and on the devkit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.device.dut import Dut, DutConfig

ROOT = Path(__file__).parents[2]
BATCH = 500  # chunks of one stream
MAX_GROWTH_BYTES = 8 << 20
MAX_DRIFT = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def processor_s(pid):
    """Processor seconds of this process and of *pid*: others use this machine as well."""
    clock = ~pid << 3 | 2  # what clock_getcpuclockid(3) makes of a process
    return time.process_time() + time.clock_gettime(clock)


@pytest.fixture
def devkit_process(build_dir):
    """A devkit in a process of its own, so that its memory is measured apart."""
    command = [sys.executable, "-m", "espdl_hil", "simulate", "--target", "esp32s3", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline()
            yield process.pid, next(word for word in first.split() if word.startswith("rfc2217://"))
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory in /proc")
def test_a_soak_leaves_memory_and_latency_flat(
    devkit_process, build_dir, package, streaming, capsys
):
    chunks = int(os.environ.get("HIL_SOAK_CHUNKS", "1000000"))
    pid, url = devkit_process
    batch = (streaming.chunks * (BATCH // len(streaming.chunks) + 1))[:BATCH]
    seconds, busy_s, host, devkit = [], [], [], []
    with Dut(DutConfig("esp32s3", build_dir, port=url), models=package) as dut:
        model = dut.session.load("streaming")
        wanted = [result.outputs for result in model.stream(batch, reset=True)]
        for _ in range(chunks // BATCH):
            started, busy = time.perf_counter(), processor_s(pid)
            results = model.stream(batch, reset=True)
            seconds.append((time.perf_counter() - started) / BATCH)
            busy_s.append((processor_s(pid) - busy) / BATCH)
            assert all(
                np.array_equal(result.outputs[name], array)
                for result, outputs in zip(results, wanted, strict=True)
                for name, array in outputs.items()
            )
            host.append(resident_bytes("self"))
            devkit.append(resident_bytes(pid))
        stats = dict(dut.session._transport.stats)
    tenth = max(1, len(seconds) // 10)
    first, last, first_busy, last_busy = (
        1e3 * float(np.median(part))
        for all_ in (seconds, busy_s)
        for part in (all_[:tenth], all_[-tenth:])
    )
    grown = {
        who: max(all_[-tenth:]) - max(all_[:tenth])
        for who, all_ in (("host", host), ("devkit", devkit))
    }
    with capsys.disabled():
        print(f"\nmedian ms a chunk, first and last tenth: {first:.3f}, {last:.3f}")
        print(f"of the processor: {first_busy:.3f}, {last_busy:.3f}")
        print(f"{chunks} chunks; memory grew by bytes: {grown}; {stats}")
    assert max(grown.values()) < MAX_GROWTH_BYTES
    assert last_busy / first_busy - 1 < MAX_DRIFT
