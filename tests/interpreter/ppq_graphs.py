"""Makes random small networks with esp-ppq: exported files, inputs, and its own quantized outputs.

Runs as a process of its own, because esp-ppq keeps module-level state:
``python ppq_graphs.py SEED COUNT OUT.npz``. One archive, by graph number:
``<n>/file`` the exported bytes, ``<n>/in/<name>`` integers, ``<n>/out/<k>`` the k-th output as real
values, both in the file's layout; and ``index``, JSON: target, bits and seed of each.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

TARGETS = ("esp32s3", "esp32p4")
CHANNELS = (3, 8, 15, 16, 17, 24, 33)
ACTIVATIONS = (nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.LeakyReLU, nn.ReLU6)


class Residual(nn.Module):
    """A block and its input, added, multiplied or concatenated."""

    def __init__(self, inner, kind):
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x):
        y = self.inner(x)
        if self.kind == "cat":
            return torch.cat([x, y], 1)
        return x + y if self.kind == "add" else x * torch.sigmoid(y)


class Head(nn.Module):
    """Global average and a classifier, or the last frames."""

    def __init__(self, channels, spatial, pick):
        super().__init__()
        self.spatial, self.pick = spatial, pick
        pool = nn.AdaptiveAvgPool1d(1) if spatial == 1 else nn.AdaptiveAvgPool2d(1)
        self.pool = pool
        self.linear = nn.Linear(channels, 10)

    def forward(self, x):
        if self.pick == "linear":
            return self.linear(torch.flatten(self.pool(x), 1))
        return x[:, :, -2:] if self.pick == "slice" else x


def conv(rng, spatial, inputs, outputs, *, same):
    """A convolution, dense or depthwise; *same* keeps the lengths."""
    kernel, dilation = rng.choice((1, 2, 3, 5)), rng.choice((1, 1, 2))
    stride = 1 if same else rng.choice((1, 1, 2))
    reach = dilation * (kernel - 1)
    padding = (reach, 0) if rng.random() < 0.5 else (reach // 2, reach - reach // 2)
    pad = nn.ConstantPad1d(padding, 0.0) if spatial == 1 else nn.ZeroPad2d(padding * 2)
    groups = inputs if inputs == outputs and rng.random() < 0.4 else 1
    make = nn.Conv1d if spatial == 1 else nn.Conv2d
    layer = make(inputs, outputs, kernel, stride, dilation=dilation, groups=groups,
                 bias=rng.random() < 0.8)  # fmt: skip
    return nn.Sequential(pad, layer) if reach else layer


def first_activation(rng, spatial, bits, channels):
    """Any of them, or a PRelu where ESP-DL rescales one: int8 pictures."""
    if spatial == 1 or bits != 8 or rng.random() < 0.5:
        return rng.choice(ACTIVATIONS)()
    layer = nn.PReLU(channels)
    nn.init.uniform_(layer.weight, -0.5, 1.0)
    return layer


def network(rng, spatial, bits):
    """A random network and the shape of its input."""
    channels = rng.choice(CHANNELS)
    shape = (1, rng.choice(CHANNELS), *((48,) if spatial == 1 else (10, 40)))
    layers = [conv(rng, spatial, shape[1], channels, same=False)]
    layers.append(first_activation(rng, spatial, bits, channels))
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(("conv", "add", "mul", "cat", "average", "maximum"))
        if kind == "conv":
            outputs = rng.choice(CHANNELS)
            layers.append(conv(rng, spatial, channels, outputs, same=False))
            channels = outputs
        elif kind in ("add", "mul", "cat"):
            inner = nn.Sequential(
                conv(rng, spatial, channels, channels, same=True), rng.choice(ACTIVATIONS)()
            )
            layers.append(Residual(inner, kind))
            channels *= 2 if kind == "cat" else 1
        elif kind == "average":
            layers.append(nn.AvgPool1d(2, 1) if spatial == 1 else nn.AvgPool2d((2, 3), (1, 2)))
        else:
            layers.append(nn.MaxPool1d(3, 2) if spatial == 1 else nn.MaxPool2d(2, 1))
        layers.append(rng.choice(ACTIVATIONS)())
    layers.append(Head(channels, spatial, rng.choice(("linear", "slice", "all", "all"))))
    return nn.Sequential(*layers), shape


def quantize(module, shape, target, bits, folder):
    """The quantized graph, its executor and the exported bytes."""
    from esp_ppq.api import espdl_quantize_torch
    from esp_ppq.executor import TorchExecutor

    path = Path(folder) / "model.espdl"
    data = [torch.randn(shape) for _ in range(4)]
    graph = espdl_quantize_torch(
        model=module,
        espdl_export_file=str(path),
        calib_dataloader=data,
        calib_steps=len(data),
        input_shape=list(shape),
        target=target,
        num_of_bits=bits,
        debug=bits == 16,  # accumulate in float64; float32 loses bits of an int16 sum
        error_report=False,
        device="cpu",
        verbose=0,
    )
    return TorchExecutor(graph=graph, device="cpu"), path.read_bytes()


def make(seed, target, bits, folder):
    """Arrays of one graph."""
    from espdl_hil.espdl import load_graph

    rng = random.Random(seed)
    torch.manual_seed(seed)
    module, shape = network(rng, rng.choice((1, 2)), bits)
    executor, file = quantize(module.eval(), shape, target, bits, folder)
    (info,) = load_graph(file).inputs
    half = 2 ** (bits - 1)
    spread = np.random.default_rng(seed).normal(0, half / 3, shape).round()
    values = spread.clip(-half, half - 1)
    real = torch.tensor(values * 2.0**info.exponent, dtype=torch.float32)
    outputs = executor.forward(real)
    arrays = {f"in/{info.name}": channels_last(values).astype(info.dtype)}
    for k, tensor in enumerate(outputs):
        arrays[f"out/{k}"] = channels_last(tensor.detach().numpy())
    return {"file": np.frombuffer(file, np.uint8), **arrays}


def channels_last(values):
    """The file's layout of what a convolution takes or gives."""
    return np.ascontiguousarray(np.moveaxis(values, 1, -1))


def main(seed, count, out):
    torch.set_num_threads(1)
    arrays, index = {}, []
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for n in range(count):
            target, bits = TARGETS[n % 2], (8, 16)[n // 2 % 2]
            made = make(seed + n, target, bits, folder)
            index.append({"target": target, "bits": bits, "seed": seed + n})
            arrays |= {f"{n}/{name}": values for name, values in made.items()}
    np.savez(out, index=np.frombuffer(json.dumps(index).encode(), np.uint8), **arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
