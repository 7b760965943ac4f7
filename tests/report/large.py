"""A row with as many chunks as asked for, drawn as a proof draws it."""

from types import SimpleNamespace

import numpy as np

from espdl_hil.compare import EXACT, compare_streams
from espdl_hil.proof.comparison import Comparison
from espdl_hil.proof.pictures import draw
from espdl_hil.report import Check, Details, Row

FRAMES, CHANNELS = 3, 32


def make_row(chunks, wrong=None):
    """*wrong* names a chunk and a channel that are one step off in their second frame."""
    rng = np.random.default_rng(0)
    expected = [
        {"y": rng.integers(-90, 90, (1, FRAMES, CHANNELS)).astype(np.int8)} for _ in range(chunks)
    ]
    observed = [{"y": chunk["y"].copy()} for chunk in expected]
    if wrong:
        observed[wrong[0]]["y"][0, 1, wrong[1]] ^= 1
    alignment = SimpleNamespace(
        output="y", out_frames_per_chunk=FRAMES, warmup_frames=4, state_input=""
    )
    case = SimpleNamespace(
        skip_frames={}, frame_axes={"y": 1}, plan=SimpleNamespace(alignments=(alignment,))
    )
    verdict = compare_streams(expected, observed, frame_axes={"y": 1})
    comparison = Comparison("what", True, expected, observed, verdict, EXACT, "offline")
    drawn = [{"check": "streaming", "part": "stream", **p} for p in draw(comparison, case)]
    check = Check.of(verdict, elements=chunks * FRAMES * CHANNELS, tolerance=EXACT)
    pictures = {"comparisons": drawn, "budget": [], "layers": [], "latency_us": None}
    return Row(
        *("id", "esp32s3", "model", 8, FRAMES, "simulated", check.outcome, chunks),
        frames=chunks * FRAMES,
        checks={"streaming": check},
        sqnr_db=31.0,
        details=Details(pictures=pictures),
    )
