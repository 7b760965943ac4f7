"""Random causal networks: specifications as nested tuples, and the modules they mean.

A specification is ``(channels, layers, head)``. Layers work on ``(1, C, T)``; each is a tuple
whose first entry names it. Nothing here imports torch before a module is built.
"""

from __future__ import annotations

import random

SEQUENCES = ("res", "crop")  # layers whose last entry is a list of layers
ACTIVATIONS = ("none", "relu", "relu", "tanh", "silu", "sigmoid")


def generate(seed: int) -> tuple:
    """A random specification; equal seeds give equal ones."""
    rng = random.Random(seed)
    channels = rng.choice((4, 8, 12))
    layers = tuple(_layer(rng, depth=2) for _ in range(rng.randint(1, 5)))
    heads = (("none",),) * 3 + (("tail", rng.randint(1, 4)), ("last",), ("two",))
    return channels, layers, rng.choice(heads)


def _layer(rng: random.Random, depth: int) -> tuple:
    plain = {
        "conv": lambda: (rng.randint(1, 4), rng.randint(1, 3), rng.choice(ACTIVATIONS)),
        "chomp": lambda: (rng.randint(2, 3), rng.randint(1, 2)),
        "dw": lambda: (rng.randint(2, 5), rng.randint(1, 2), rng.choice(ACTIVATIONS)),
        "avg": lambda: (rng.randint(2, 4),),
        "max": lambda: (rng.randint(2, 3), rng.random() < 0.5),
        "gate": lambda: (rng.randint(1, 3), rng.randint(1, 3)),
        "linear": lambda: (rng.choice((4, 8)),),
        "cat": lambda: (rng.randint(1, 3), rng.randint(2, 5)),
        "shared": lambda: (rng.randint(2, 3), rng.randint(2, 4)),
        "down": lambda: (rng.randint(2, 4), 2),
        "up": lambda: (rng.randint(2, 4), 2),
        "subsample": lambda: (2,),
        "shift": lambda: (rng.randint(1, 3),),
        "valid": lambda: (rng.randint(2, 3),),
        "center": lambda: (rng.choice((3, 5)),),
        "norm": lambda: (),
    }
    nested = {
        "res": lambda: (_keeping(rng, depth - 1),),
        "wide": lambda: (rng.randint(2, 3), rng.randint(2, 3)),
    }
    kinds = list(plain) + (list(nested) * 3 if depth else [])
    kind = rng.choice(kinds)
    return (kind, *(plain | nested)[kind]())


def _keeping(rng: random.Random, depth: int) -> tuple:
    """Layers that keep channels, rate and latency, for a residual branch."""
    kinds = ("dw", "chomp", "gate", "avg", "shared")
    layers = []
    while len(layers) < rng.randint(1, 3):
        layer = _layer(rng, depth)
        if layer[0] in kinds or (layer[0] == "res" and depth):
            layers.append(layer)
    return tuple(layers)


def shrink(spec: tuple):
    """Smaller specifications, the most promising first."""
    channels, layers, head = spec
    if head != ("none",):
        yield channels, layers, ("none",)
    for index in range(len(layers)):
        if len(layers) > 1:
            yield channels, layers[:index] + layers[index + 1 :], head
        if layers[index][0] == "res":
            yield channels, layers[:index] + layers[index][1] + layers[index + 1 :], head
            for inner in range(len(layers[index][1])):
                branch = layers[index][1][:inner] + layers[index][1][inner + 1 :]
                if branch:
                    yield channels, (*layers[:index], ("res", branch), *layers[index + 1 :]), head
        for place, value in enumerate(layers[index]):
            if isinstance(value, int) and not isinstance(value, bool) and value > 2:
                layer = (*layers[index][:place], value - 1, *layers[index][place + 1 :])
                yield channels, (*layers[:index], layer, *layers[index + 1 :]), head
    if channels > 4:
        yield 4, layers, head


def total_stride(spec: tuple) -> int:
    """What chunks must be a multiple of, from the specification alone."""
    rate, stride = 1.0, 1
    for layer in spec[1]:
        if layer[0] in ("down", "subsample"):
            rate /= layer[-1]
        elif layer[0] == "up":
            rate *= layer[-1]
        stride = max(stride, round(1 / rate))
    return stride


def build(spec: tuple):
    """The ``torch.nn.Module`` of a specification."""
    from randomnet_layers import Network

    return Network(spec)
