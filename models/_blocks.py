"""Layers that several models share. Imported inside ``build`` only: it needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn


class CausalConv1d(nn.Module):
    """Convolution over ``(1, C, T)`` that sees no frame of the future.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Kernel length, frames.
        stride: Frames in for one frame out.
        dilation: Frames between taps.
        groups: 1, or *inputs* for a depthwise convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.left = (kernel - 1) * dilation
        self.conv = nn.Conv1d(
            inputs, outputs, kernel, stride=stride, dilation=dilation, groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.left, 0)))


class CausalConv2d(nn.Module):
    """Convolution over ``(1, C, T, F)``, causal in time and centred in frequency.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        kernel: Kernel sizes in time and frequency; the latter odd.
        stride: Strides in time and frequency.
        dilation: Dilation in time.
        groups: 1, or *inputs* for a depthwise convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        side = kernel[1] // 2
        self.padding = (side, side, (kernel[0] - 1) * dilation, 0)  # last axis first
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride=stride, dilation=(dilation, 1), groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


def causal_average(x: Tensor, window: int) -> Tensor:
    """Return the mean of the last *window* frames of ``(1, C, T)``, zeros before the first."""
    return F.avg_pool1d(F.pad(x, (window - 1, 0)), window, stride=1)


def trained(module: nn.Module, model_file: str) -> nn.Module:
    """Give a network the weights that ``_train.py`` left beside its model file.

    Args:
        module: The network.
        model_file: ``__file__`` of the model; ``NAME.npz`` lies beside it. Without it the network
            is settled only, which is where training begins.
    """
    path = Path(model_file).with_suffix(".npz")
    if not path.exists():
        return settle(module)
    with np.load(path) as file:
        module.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
    return module


def settle(module: nn.Module) -> nn.Module:
    """Give a network weights and statistics as training leaves them.

    Signals keep their size from layer to layer instead of fading, sigmoids spread over their
    range, and batch norms have statistics that are not zero and one.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0.0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.normal_(layer.bias, 0.0, 0.1)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.normal_(layer.bias, 0.0, 0.1)
    return module
