"""The layers of ``randomnet`` in torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "none": lambda x: x,
    "relu": F.relu,
    "tanh": torch.tanh,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}


def causal(x, frames):
    return F.pad(x, (frames, 0)) if frames else x


class Conv(nn.Module):
    def __init__(self, c, k, d, activation):
        super().__init__()
        self.conv, self.pad, self.activation = (
            nn.Conv1d(c, c, k, dilation=d),
            (k - 1) * d,
            activation,
        )

    def forward(self, x):
        return ACTIVATIONS[self.activation](self.conv(causal(x, self.pad)))


class Chomp(nn.Module):
    def __init__(self, c, k, d):
        super().__init__()
        self.cut = (k - 1) * d
        self.conv = nn.Conv1d(c, c, k, dilation=d, padding=self.cut)

    def forward(self, x):
        return F.relu(self.conv(x)[:, :, : -self.cut])


class Depthwise(nn.Module):
    def __init__(self, c, k, d, activation):
        super().__init__()
        self.conv = nn.Conv1d(c, c, k, dilation=d, groups=c)
        self.pad, self.activation = (k - 1) * d, activation

    def forward(self, x):
        return ACTIVATIONS[self.activation](self.conv(causal(x, self.pad)))


class Average(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.k = k

    def forward(self, x):
        return F.avg_pool1d(causal(x, self.k - 1), self.k, stride=1)


class Maximum(nn.Module):
    def __init__(self, c, k, positive):
        super().__init__()
        self.k, self.positive = k, positive

    def forward(self, x):
        x = F.relu(x) if self.positive else x
        value = float("-inf") if self.positive else 0.0
        return F.max_pool1d(F.pad(x, (self.k - 1, 0), value=value), self.k, stride=1)


class Gate(nn.Module):
    def __init__(self, c, k1, k2):
        super().__init__()
        self.a, self.b = Conv(c, k1, 1, "tanh"), Conv(c, k2, 1, "sigmoid")

    def forward(self, x):
        return self.a(x) * self.b(x)


class Linear(nn.Module):
    def __init__(self, c, hidden):
        super().__init__()
        self.a, self.b = nn.Linear(c, hidden), nn.Linear(hidden, c)

    def forward(self, x):
        return self.b(F.relu(self.a(x.transpose(1, 2)))).transpose(1, 2)


class Cat(nn.Module):
    def __init__(self, c, k1, k2):
        super().__init__()
        self.a, self.b, self.join = (
            Conv(c, k1, 1, "relu"),
            Conv(c, k2, 1, "none"),
            nn.Conv1d(2 * c, c, 1),
        )

    def forward(self, x):
        return self.join(torch.cat([self.a(x), self.b(x)], 1))


class Shared(nn.Module):
    """Two convolutions behind one Pad; the shorter one cuts what it does not need."""

    def __init__(self, c, k1, k2):
        super().__init__()
        self.a, self.b = nn.Conv1d(c, c, k1), nn.Conv1d(c, c, k2)
        self.pad, self.cuts = max(k1, k2) - 1, (max(k1, k2) - k1, max(k1, k2) - k2)

    def forward(self, x):
        x = causal(x, self.pad)
        a, b = (x[:, :, cut:] if cut else x for cut in self.cuts)
        return self.a(a) + self.b(b)


class Down(nn.Module):
    def __init__(self, c, k, s):
        super().__init__()
        self.conv, self.pad = nn.Conv1d(c, c, k, stride=s), max(0, k - s)

    def forward(self, x):
        return F.relu(self.conv(causal(x, self.pad)))


class Up(nn.Module):
    def __init__(self, c, k, s):
        super().__init__()
        self.conv, self.cut = nn.ConvTranspose1d(c, c, k, stride=s), k - s

    def forward(self, x):
        y = self.conv(x)
        return y[:, :, : -self.cut] if self.cut else y


class Subsample(nn.Module):
    def __init__(self, c, s):
        super().__init__()
        self.s = s

    def forward(self, x):
        return x[:, :, :: self.s]


class Shift(nn.Module):
    def __init__(self, c, frames):
        super().__init__()
        self.frames, self.conv = frames, nn.Conv1d(c, c, 1)

    def forward(self, x):
        return self.conv(F.pad(x, (self.frames, 0))[:, :, : -self.frames]) + x


class Valid(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.conv, self.cut = nn.Conv1d(c, c, k), k - 1

    def forward(self, x):
        return F.relu(self.conv(x)) + x[:, :, self.cut :]


class Center(nn.Module):
    def __init__(self, c, k):
        super().__init__()
        self.conv, self.cut = nn.Conv1d(c, c, k), k // 2

    def forward(self, x):
        return self.conv(x) + x[:, :, self.cut : -self.cut]


class Norm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm = nn.LayerNorm(c)

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class Residual(nn.Module):
    def __init__(self, c, layers):
        super().__init__()
        self.branch = nn.Sequential(*(make(c, layer) for layer in layers))

    def forward(self, x):
        return x + self.branch(x)


class Wide(nn.Module):
    """A two-dimensional convolution over (channels, frames), time on the last axis."""

    def __init__(self, c, k1, k2):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (k1, k2), padding=(k1 // 2, 0))
        self.pad, self.join = k2 - 1, None
        rows = c + 2 * (k1 // 2) - k1 + 1
        self.join = nn.Conv1d(2 * rows, c, 1)

    def forward(self, x):
        y = F.relu(self.conv(causal(x.unsqueeze(1), self.pad)))
        return self.join(y.flatten(1, 2))


KINDS = {
    "conv": Conv,
    "chomp": Chomp,
    "dw": Depthwise,
    "avg": Average,
    "max": Maximum,
    "gate": Gate,
    "linear": Linear,
    "cat": Cat,
    "shared": Shared,
    "down": Down,
    "up": Up,
    "subsample": Subsample,
    "shift": Shift,
    "valid": Valid,
    "center": Center,
    "norm": Norm,
    "res": Residual,
    "wide": Wide,
}


def make(c, layer):
    return KINDS[layer[0]](c, *layer[1:])


class Network(nn.Module):
    def __init__(self, spec):
        super().__init__()
        c, layers, head = spec
        self.first = nn.Conv1d(4, c, 1)
        self.layers = nn.Sequential(*(make(c, layer) for layer in layers))
        self.last = nn.Conv1d(c, 4, 1)
        self.head = head
        if head[0] in ("tail", "both"):
            self.linear = nn.Linear(4 * head[1], 3)

    def forward(self, x):
        hidden = self.layers(self.first(x))
        y = self.last(hidden)
        if self.head[0] == "tail":
            return self.linear(torch.flatten(y[:, :, -self.head[1] :], 1))
        if self.head[0] == "both":
            return hidden, self.linear(torch.flatten(y[:, :, -self.head[1] :], 1))
        if self.head[0] == "middle":
            return torch.flatten(y[:, :, -self.head[1] : -self.head[2]], 1)
        if self.head[0] == "last":
            return torch.tanh(y[:, :, -1])
        if self.head[0] == "two":
            return y, F.relu(hidden)
        return y
