"""Networks that the exporter's own streaming conversion gets wrong, and some that cannot stream."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def left(x, frames, value=0.0):
    """Pad the last axis on the left."""
    return F.pad(x, (frames, 0), value=value)


class Residual(nn.Module):
    """A tensor feeds a causal convolution and an Add."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 3)

    def forward(self, x):
        x = self.first(x)
        return F.relu(self.conv(left(x, 2))) + x


class TwoKernels(nn.Module):
    """Two convolutions of kernels 3 and 5 share an input."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)
        self.three, self.five = nn.Conv1d(8, 8, 3), nn.Conv1d(8, 8, 5)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.three(left(x, 2)) + self.five(left(x, 4))


class TimeOnHeight(nn.Module):
    """A 2-D convolution with time on H: input (1, 1, T, F)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=(0, 1))

    def forward(self, x):
        return F.relu(self.conv(F.pad(x, (0, 0, 2, 0))))


class TimeOnWidth(nn.Module):
    """A 2-D convolution with time on W: input (1, 1, F, T)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=(1, 0))

    def forward(self, x):
        return F.relu(self.conv(left(x, 2)))


class Symmetric(nn.Module):
    """Symmetric padding: the next frame is needed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, padding=1)

    def forward(self, x):
        return F.relu(self.conv(x))


class Chomp(nn.Module):
    """Symmetric padding whose surplus frames are cut off again: causal after all."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3, padding=2)

    def forward(self, x):
        return F.relu(self.conv(x)[:, :, :-2])


class PoolBehindPad(nn.Module):
    """A Pad that cannot be fused into its MaxPool."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)

    def forward(self, x):
        return F.max_pool1d(left(self.first(x), 2), 3, stride=1)


class SharedPad(nn.Module):
    """A Pad of the graph input that two convolutions share."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 3), nn.Conv1d(4, 8, 3)

    def forward(self, x):
        x = left(x, 2)
        return self.a(x) + self.b(x)


class Transposed(nn.Module):
    """A strided encoder and a ConvTranspose decoder."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv1d(4, 8, 4, stride=2), nn.ConvTranspose1d(8, 4, 4, stride=2)

    def forward(self, x):
        return self.up(F.relu(self.down(left(x, 2))))[:, :, : x.shape[2]]


class InfinitePool(nn.Module):
    """A MaxPool whose padding is minus infinity."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)

    def forward(self, x):
        return F.max_pool1d(left(self.first(x), 2, float("-inf")), 3, stride=1)


class UncountedAverage(nn.Module):
    """An AveragePool that does not count its padding, cut to be causal."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)
        self.pool = nn.AvgPool1d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, x):
        return self.pool(self.first(x))[:, :, :-1]


class Strided(nn.Module):
    """A total stride of 6."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 3, stride=2), nn.Conv1d(8, 8, 3, stride=3)

    def forward(self, x):
        return self.b(left(F.relu(self.a(left(x, 2))), 2))


class MeanOverTime(nn.Module):
    """A gate from the mean over all frames."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)

    def forward(self, x):
        x = self.first(x)
        return x * torch.sigmoid(x.mean(2, keepdim=True))


class SoftmaxOverTime(nn.Module):
    """A softmax over all frames."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)

    def forward(self, x):
        return torch.softmax(self.first(x), 2)


class GlobalPool(nn.Module):
    """A classifier over the pooled sequence."""

    def __init__(self):
        super().__init__()
        self.first, self.linear = nn.Conv1d(4, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(F.adaptive_avg_pool1d(F.relu(self.first(x)), 1).flatten(1))


class LinearFrames(nn.Module):
    """A Linear on (1, T, C): the exporter reshapes to the offline frame count and back."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 8)

    def forward(self, x):
        return F.relu(self.linear(x))


class LastFrames(nn.Module):
    """A head over the last three frames."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv1d(4, 8, 3), nn.Linear(24, 3)

    def forward(self, x):
        return self.linear(self.conv(left(x, 2))[:, :, -3:].flatten(1))


class LastFrame(nn.Module):
    """A head on the last frame, picked by index."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv1d(4, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.linear(self.conv(left(x, 2))[:, :, -1])


class Recurrent(nn.Module):
    """A GRU with explicit state."""

    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(4, 8, batch_first=True), nn.Conv1d(8, 4, 1)

    def forward(self, x, h):
        y, h = self.gru(x.transpose(1, 2), h)
        return self.out(y.transpose(1, 2)), h


class RecurrentCell(nn.Module):
    """An LSTM with explicit state."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 8, batch_first=True), nn.Conv1d(8, 4, 1)

    def forward(self, x, h, c):
        y, (h, c) = self.lstm(x.transpose(1, 2), (h, c))
        return self.out(y.transpose(1, 2)), h, c


class Plain(nn.Module):
    """One causal convolution behind a pointwise one: what the exporter converts rightly."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 3)

    def forward(self, x):
        return self.conv(left(F.relu(self.first(x)), 2))


class Attention(nn.Module):
    """Self-attention over all frames: input (1, T, C)."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1)
        return weights @ self.v(x)


class ResizeTime(nn.Module):
    """Linear interpolation in time."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)

    def forward(self, x):
        return F.interpolate(self.first(x), scale_factor=2, mode="linear")


class ReflectPad(nn.Module):
    """Reflected frames before the first."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 3)

    def forward(self, x):
        return self.conv(F.pad(self.first(x), (2, 0), mode="reflect"))


class FlattenAll(nn.Module):
    """A Linear over the whole sequence."""

    def __init__(self):
        super().__init__()
        self.first, self.linear = nn.Conv1d(4, 8, 1), nn.Linear(8 * 24, 3)

    def forward(self, x):
        return self.linear(self.first(x).flatten(1))


class FirstFrames(nn.Module):
    """The first three frames of the sequence."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)

    def forward(self, x):
        return self.first(x)[:, :, :3]


class Positional(nn.Module):
    """A value of its own for each offline frame."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 8, 1)
        self.position = nn.Parameter(torch.randn(1, 8, 24))

    def forward(self, x):
        return self.first(x) + self.position


class JoinedInTime(nn.Module):
    """Two copies of the sequence, one after the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 1), nn.Conv1d(4, 8, 1)

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x)], 2)


class Bidirectional(nn.Module):
    """A GRU that also runs against time."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True, bidirectional=True)

    def forward(self, x, h):
        y, h = self.gru(x.transpose(1, 2), h)
        return y.transpose(1, 2), h


class Valid(nn.Module):
    """No padding at all, a cropped residual: the stream lags by four frames."""

    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 5)

    def forward(self, x):
        x = self.first(x)
        return self.conv(x) + x[:, :, 2:-2]


class LateRecurrence(nn.Module):
    """A GRU behind an unpadded convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.gru = nn.Conv1d(4, 8, 3), nn.GRU(8, 8, batch_first=True)

    def forward(self, x, h):
        y, h = self.gru(self.conv(x).transpose(1, 2), h)
        return y.transpose(1, 2), h


class Fusion(nn.Module):
    """Two inputs, the second at twice the rate."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 3), nn.Conv1d(4, 8, 4, stride=2)
        self.join = nn.Conv1d(16, 4, 1)

    def forward(self, x, y):
        return self.join(torch.cat([F.relu(self.a(left(x, 2))), F.relu(self.b(left(y, 2)))], 1))


class ManyOutputs(nn.Module):
    """Outputs at the frame rate, at half of it, and of the last frames."""

    def __init__(self):
        super().__init__()
        self.conv, self.down = nn.Conv1d(4, 8, 3), nn.Conv1d(8, 4, 3, stride=2)
        self.linear = nn.Linear(24, 3)

    def forward(self, x):
        x = F.relu(self.conv(left(x, 2)))
        return torch.tanh(x), self.down(left(x, 2)), self.linear(x[:, :, -3:].flatten(1))


class Upsampled(nn.Module):
    """Sub-pixel upsampling: channels become frames."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 8, 3)

    def forward(self, x):
        x = self.conv(left(x, 2))
        return x.reshape(1, 4, 2, -1).permute(0, 1, 3, 2).reshape(1, 4, -1)
