"""Makes random networks with esp-ppq: offline files, inputs, and the record of its own execution.

Runs as a process of its own: ``python record_networks.py SEED COUNT FOLDER``. A folder a network:
``offline.espdl``, ``reference.npz``, ``inputs.npz``, and ``made.json`` with target and width.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "streaming"), str(TESTS / "interpreter")]

import ppq_graphs  # noqa: E402
import randomnet  # noqa: E402

from espdl_hil import Quantization, StreamingModel  # noqa: E402
from espdl_hil.espdl import load_graph  # noqa: E402
from espdl_hil.quantize import exporter, float_graph, reference  # noqa: E402

TARGETS = ("esp32s3", "esp32p4")
FRAMES = 48
CHANNELS = 4
HIDDEN = (5, 8, 16)  # short rows of weights take the portable kernels
BATCHES = 2


class Recurrent(nn.Module):
    """A random network's frames through a GRU or LSTM, and a head that steepens its errors."""

    def __init__(self, kind, hidden, head):
        super().__init__()
        self.first = nn.Linear(CHANNELS, 8)
        self.layer = getattr(nn, kind)(8, hidden, batch_first=True)
        self.last, self.skip, self.head = nn.Linear(hidden, 6), nn.Linear(8, hidden), head

    def forward(self, x, *states):
        x = self.first(x)
        y, after = self.layer(x, states if len(states) > 1 else states[0])
        after = after if isinstance(after, tuple) else (after,)
        if self.head == "residual":
            return self.skip(x) + y, *after
        y = 8 * self.last(y)
        return (torch.softmax(y, -1) if self.head == "softmax" else torch.sigmoid(y)), *after


class Headed(nn.Module):
    """A random network, and float steps behind it."""

    def __init__(self, body, head):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x):
        y = self.body(x)
        y = y[0] if isinstance(y, tuple) else y
        if self.head == "softmax":
            return torch.softmax(y, -1)
        return y.mean(-1) if self.head == "mean" else y


def network(seed, bits):
    """A module in evaluation mode, its input shapes, and its recurrent state."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind = rng.choice(("streaming", "streaming", "picture", "GRU", "LSTM"))
    if kind == "streaming":
        spec = randomnet.generate(seed)
        body = Headed(randomnet.build(spec), rng.choice(("none", "softmax", "mean")))
        return body.eval(), {"input": (1, CHANNELS, FRAMES)}, {}
    if kind == "picture":
        body, shape = ppq_graphs.network(rng, rng.choice((1, 2)), bits)
        return Headed(body, "none").eval(), {"input": shape}, {}
    hidden = rng.choice(HIDDEN)
    module = Recurrent(kind, hidden, rng.choice(("sigmoid", "softmax", "residual")))
    names = ("h", "c")[: 1 if kind == "GRU" else 2]
    shapes = {"input": (1, FRAMES, CHANNELS), **dict.fromkeys(names, (1, 1, hidden))}
    return module.eval(), shapes, {name: f"{name}_out" for name in names}


def make(seed, target, bits, folder):
    """Everything of one network."""
    module, shapes, state = network(seed, bits)
    model = StreamingModel(
        name=f"random{seed}",
        build=lambda: module,
        input_shape=shapes,
        frame_axis={"input": 1 if state else 2},
        outputs=("output", *state.values()),
        state=state,
        chunk_frames=(1,),
    )
    rng = np.random.default_rng(seed)
    batches = [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(BATCHES + 1)
    ]
    float_graph.export_onnx(module, model, folder / "float.onnx")
    graph = exporter.calibrate(
        folder / "float.onnx", target, bits, batches[1:], state, Quantization()
    )
    run = reference.execute(graph, batches[0])
    path = folder / "offline.espdl"
    layouts = exporter.export_file(graph, path, target, bits, [])
    reference.record(run, load_graph(path), layouts, folder)
    np.savez(
        folder / "inputs.npz", **{name: layouts[name].quantize(a) for name, a in batches[0].items()}
    )
    (folder / "made.json").write_text(json.dumps({"target": target, "bits": bits, "seed": seed}))


def main(seed, count, out):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for n in range(seed, seed + count):
        folder = out / str(n)
        folder.mkdir(parents=True)
        make(n, TARGETS[n % 2], (8, 16)[n // 2 % 2], folder)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
