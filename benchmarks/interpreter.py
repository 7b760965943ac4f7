"""How fast the interpreter is, as ratios to esp-ppq's TorchExecutor on the same models and inputs.

Usage: ``python benchmarks/interpreter.py [--only NAME ...] [--profile]``

One process quantizes each network once, then both sides run the same input by turns; a figure is
the median of five runs, in CPU time, so that a busy machine slows neither side. Each side has one
thread: torch by its own setting, the BLAS behind NumPy by the environment, which is why the script
starts itself again when it is not set.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

RUNS = 5
RUN_S = 0.3  # each run repeats until this much time has passed
LANE_RUNS = 31  # of one step each, so that both sides meet the same neighbours
TARGET = "esp32s3"


@dataclass(frozen=True)
class Net:
    """One line of the table.

    Attributes:
        name: How it is called.
        build: Returns the torch module.
        shape: The module's input, batch 1, channels first.
        goal: Ratio to reach.
        frames: Other lengths to run the same file at, such as a chunk.
    """

    name: str
    build: Callable[[], Any]
    shape: tuple[int, ...]
    goal: float
    frames: tuple[int, ...] = ()


def layers() -> Any:
    import torch

    return torch.nn


def tcn() -> Any:
    """The tutorial's TCN: causal depthwise-separable blocks with SiLU, residual, causal average."""
    import torch

    nn = layers()

    class Block(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv1d(inputs, inputs, 3, dilation=2, groups=inputs)
            self.pointwise = nn.Conv1d(inputs, outputs, 1)
            self.norm = nn.BatchNorm1d(outputs)

        def forward(self, x: Any) -> Any:
            x = self.depthwise(nn.functional.pad(x, (4, 0)))
            return nn.functional.silu(self.norm(self.pointwise(x)))

    class Tcn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.widen = Block(16, 32)
            self.middle = Block(32, 32)
            self.narrow = Block(32, 16)
            self.pool = nn.AvgPool1d(3, 1)
            self.head = nn.Conv1d(16, 16, 1)

        def forward(self, x: Any) -> Any:
            wide = self.widen(x)
            wide = wide + self.middle(wide)
            mean = self.pool(nn.functional.pad(self.narrow(wide), (2, 0)))
            return torch.sigmoid(self.head(mean[:, :, -3:]))

    return Tcn()


def ds_cnn() -> Any:
    """A keyword-spotting DS-CNN: one convolution, four depthwise-separable blocks, a classifier."""
    nn = layers()

    def separable() -> list[Any]:
        return [
            nn.Conv2d(64, 64, 3, padding=1, groups=64),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ]

    first = [nn.Conv2d(1, 64, (10, 4), stride=2, padding=(5, 1)), nn.BatchNorm2d(64), nn.ReLU()]
    blocks = [layer for _ in range(4) for layer in separable()]
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))


def conv_stack() -> Any:
    """Eight 1-D convolutions, about 10 million multiply-accumulates."""
    nn = layers()
    stack = [nn.Conv1d(40, 64, 3, padding=1), nn.ReLU()]
    for _ in range(7):
        stack += [nn.Conv1d(64, 64, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*stack)


def mobilenet() -> Any:
    """A network of MobileNetV2's size and blocks, for 224 x 224 pictures."""
    import torch

    nn = layers()

    def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[Any]:
        padding = kernel // 2
        return [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]

    class Inverted(torch.nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
            super().__init__()
            wide = inputs * expand
            widen = [*conv(inputs, wide, 1), nn.ReLU6()] if expand != 1 else []
            self.path = nn.Sequential(
                *widen,
                *conv(wide, wide, 3, stride, wide),
                nn.ReLU6(),
                *conv(wide, outputs, 1),
            )
            self.shortcut = stride == 1 and inputs == outputs

        def forward(self, x: Any) -> Any:
            return x + self.path(x) if self.shortcut else self.path(x)

    plan = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    blocks, inputs = [*conv(3, 32, 3, 2), nn.ReLU6()], 32
    for expand, outputs, count, stride in plan:
        for i in range(count):
            blocks.append(Inverted(inputs, outputs, stride if i == 0 else 1, expand))
            inputs = outputs
    tail = [*conv(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*blocks, *tail, nn.Linear(1280, 1000))


LANE_GOALS = (("no layer can saturate", 0.0, 1.05), ("10% of the layers can", 0.1, 3.0))
NETS = (
    Net("tcn", tcn, (1, 16, 24), goal=40.0, frames=(3,)),
    Net("ds_cnn", ds_cnn, (1, 1, 49, 10), goal=12.0),
    Net("conv_stack", conv_stack, (1, 40, 112), goal=8.0),
    Net("mobilenet_v2", mobilenet, (1, 3, 224, 224), goal=2.5),
)


@contextmanager
def silence() -> Iterator[None]:
    """Drop what is printed; the exporter talks a lot, past `sys.stdout`."""
    sys.stdout.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield
    finally:
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nothing)


def quantize(net: Net, folder: Path) -> tuple[Any, Path]:
    """The quantized graph and the exported file."""
    import torch
    from esp_ppq.api import espdl_quantize_torch

    torch.manual_seed(0)
    module = net.build().eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(layer.running_var, 0.2, 2.0)
            torch.nn.init.uniform_(layer.running_mean, -0.3, 0.3)
    path = folder / f"{net.name}.espdl"
    data = [torch.randn(net.shape) for _ in range(2)]
    graph = espdl_quantize_torch(
        model=module,
        espdl_export_file=str(path),
        calib_dataloader=data,
        calib_steps=len(data),
        input_shape=list(net.shape),
        target=TARGET,
        num_of_bits=8,
        device="cpu",
        error_report=False,
        export_test_values=False,
        verbose=0,
    )
    return graph, path


def medians_s(*calls: Callable[[], object], runs: int = RUNS, run_s: float = RUN_S) -> list[float]:
    """Seconds of CPU that each call takes: medians of some runs, which take turns."""
    figures: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(runs):
        for call, mine in zip(calls, figures, strict=True):
            count, start = 0, time.process_time()
            while (spent := time.process_time() - start) < run_s or not count:
                call()
                count += 1
            mine.append(spent / count)
    return [statistics.median(mine) for mine in figures]


def measure(net: Net, folder: Path, *, profile: bool) -> list[tuple[str, float, float, str]]:
    """Rows of (name, interpreter seconds, TorchExecutor seconds, agreement)."""
    import torch

    from espdl_hil.interpreter import load

    with silence():
        from esp_ppq.executor import TorchExecutor

        graph, path = quantize(net, folder)
    executor = TorchExecutor(graph=graph, device="cpu")
    rows = []
    for frames in (net.shape[-1], *net.frames):
        x = torch.randn((*net.shape[:-1], frames))
        quantized, execution = prepared(load, path, x)
        step, forward = partial(execution.step, quantized), partial(executor.forward, x)
        same = agreement(execution, step(), forward())
        name = f"{net.name} [{', '.join(map(str, x.shape))}]"
        ours, theirs = medians_s(step, forward)
        rows.append((name, ours, theirs, same))
        if profile:
            print_profile(name, execution, quantized)
    return rows


def prepared(load: Callable[..., Any], path: Path, x: torch.Tensor) -> tuple[dict[str, Any], Any]:
    """The input as the file takes it, and an execution of that shape."""
    last = np.moveaxis(x.numpy(), 1, -1)
    first = load(path, TARGET)
    info = first.inputs[0]
    execution = load(path, TARGET, input_shapes={info.name: last.shape})
    scaled = np.floor(last / 2.0**info.exponent + 0.5)
    return {info.name: np.ascontiguousarray(scaled.clip(-128, 127).astype(np.int8))}, execution


def agreement(execution: Any, ours: dict[str, Any], theirs: list[torch.Tensor]) -> str:
    """How many output elements differ between the two sides."""
    differing = elements = 0
    for info, tensor in zip(execution.outputs, theirs, strict=True):
        real = ours[info.name] * 2.0 ** info.exponents[0]
        other = tensor.detach().numpy()
        if other.shape != real.shape:
            other = np.moveaxis(other, 1, -1)
        differing += int((np.abs(other - real) > 1e-6 * 2.0 ** info.exponents[0]).sum())
        elements += real.size
    return f"{differing} of {elements} differ"


def scaled_filters(graph: Any, share: float) -> Any:
    """The graph with int8 filters that cannot fill a 20-bit lane, or just can in a *share* of them.

    Scaled towards a running sum of nine tenths of a lane, or of twice a lane.
    """
    from espdl_hil.espdl import unpack_filter

    constants, heavy = dict(graph.initializers), 0
    layers = [node for node in graph.nodes if node.op_type in ("Conv", "Gemm")]
    for number, node in enumerate(layers):
        stored = constants[node.inputs[1]]
        depthwise = node.attributes.get("group", 1) != 1
        taps = unpack_filter(stored.raw, stored.info.shape, TARGET, depthwise=depthwise)
        reach = 128.0 * np.abs(taps.reshape(len(taps), -1).astype(float)).sum(1).max()
        wide = taps[0].size >= 2 * 2**19 / (128 * 40)
        loud = wide and heavy < share * (number + 1)
        heavy += loud
        wanted = 2 * 2**19 if loud else min(reach, 0.9 * 2**19)
        factor = wanted / reach
        raw = np.clip(np.trunc(stored.raw * factor), -128, 127).astype(stored.raw.dtype)
        constants[node.inputs[1]] = replace(stored, raw=raw)
        if len(node.inputs) > 2:
            bias = constants[node.inputs[2]]
            constants[node.inputs[2]] = replace(bias, raw=np.zeros_like(bias.raw))
    return replace(graph, initializers=constants)


@contextmanager
def exact_sums() -> Iterator[None]:
    """Load without accumulators, as if no lane were ever full."""
    name = "espdl_hil.operators.{}.saturation_of"
    with (
        patch(name.format("conv"), return_value=None),
        patch(name.format("gemm"), return_value=None),
    ):
        yield


def measure_lanes(path: Path) -> bool:
    """Print what saturating lanes cost; returns whether a goal is missed."""
    from espdl_hil.espdl import load_graph
    from espdl_hil.interpreter import load

    graph, short = load_graph(path), False
    x = np.random.default_rng(0).normal(0, 30, graph.inputs[0].shape).clip(-128, 127)
    feeds = {graph.inputs[0].name: x.astype(np.int8)}
    for name, share, goal in LANE_GOALS:
        net = scaled_filters(graph, share)
        execution = load(net, TARGET)
        with exact_sums():
            plain = load(net, TARGET)
        steps = (partial(run.step, feeds) for run in (execution, plain))
        ours, theirs = medians_s(*steps, runs=LANE_RUNS, run_s=0.0)
        execution.reset()
        execution.step(feeds)
        short |= ours > goal * theirs
        hit = sum(log.saturated for log in execution.lane_saturations)
        print(
            f"  lanes, {name:24} {ours * 1e6:9.0f} us, {ours / theirs:.2f} x of exact sums, "
            f"at most {goal:g} x; {hit} elements did"
        )
    return short


def print_profile(name: str, execution: Any, inputs: dict[str, Any]) -> None:
    """Where the time of a step goes, by operator."""
    spent: dict[str, float] = {}
    for node, kernel in execution.kernels:
        spent[node.op_type] = spent.get(node.op_type, 0.0) + medians_s(kernel)[0]
    total = medians_s(lambda: execution.step(inputs))[0]
    print(f"  {name}: {total * 1e6:.0f} us a step")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"    {kind:20} {seconds * 1e6:9.0f} us  {seconds / total:5.0%}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=[net.name for net in NETS])
    parser.add_argument("--profile", action="store_true", help="time by operator")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, "1")}
        return subprocess.call([sys.executable, *sys.argv], env=environment)
    import torch

    torch.set_num_threads(1)
    short = False
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        print(f"1 thread, {TARGET}, int8, CPU time, median of {RUNS} runs")
        print(f"{'network':32} {'interpreter':>12} {'TorchExecutor':>14} {'ratio':>7} {'goal':>5}")
        for net in NETS:
            if options.only and net.name not in options.only:
                continue
            for name, ours, theirs, same in measure(net, Path(folder), profile=options.profile):
                ratio = theirs / ours
                short |= ratio < net.goal
                print(
                    f"{name:32} {ours * 1e6:9.0f} us {theirs * 1e6:11.0f} us "
                    f"{ratio:6.1f}x {net.goal:4g}x  {same}"
                )
            if net.name == "mobilenet_v2":
                short |= measure_lanes(Path(folder) / f"{net.name}.espdl")
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
