"""Trains the models that have weights: ``python models/_train.py [NAME ...]``.

The weights go beside the model files. Training draws its signals from other seeds than the
stimulus and the calibration do, so that what a row measures was never seen before.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from _signals import UNLABELLED, keywords, motion, noisy_speech

from espdl_hil.model import importing_from, load_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent
SEED = 1  # of training; the stimulus has that of the model, 0
FRAMES = 192
BATCH = 16
SEQUENCES = 192  # a pass over all of them is an epoch; drawn once


def draw(make: Callable[[np.random.Generator, int], tuple[Any, ...]]) -> list[Tensor]:
    """Draw the training set; each of what *make* returns becomes one tensor, sequences first."""
    made = [make(np.random.default_rng([SEED, 1000 + k]), FRAMES) for k in range(SEQUENCES)]
    return [
        torch.from_numpy(np.stack(part)) if part[0].dtype == np.int64
        else torch.from_numpy(np.stack(part).astype(np.float32))
        for part in zip(*made, strict=True)
    ]  # fmt: skip


def classify(module: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy over the frames that are judged; each class counts alike."""
    scores = module(x)
    judged = labels[:, :: labels.shape[1] // scores.shape[2]]
    counts = torch.bincount(judged[judged != UNLABELLED], minlength=scores.shape[1])
    weights = counts.sum() / (counts.clamp(min=1) * len(counts))
    return F.cross_entropy(scores, judged, weight=weights.float(), ignore_index=UNLABELLED)


def denoise(module: nn.Module, x: Tensor, clean: Tensor) -> Tensor:
    """Squared error of the features."""
    return F.mse_loss(module(x), clean)


TASKS: dict[str, tuple[Any, Any, int]] = {  # what is drawn, the loss, epochs
    "svdf": (keywords, classify, 20),
    "speech_unet": (noisy_speech, denoise, 40),
    "maxpool_detector": (motion, classify, 60),
}


def train(name: str) -> None:
    """Train one model from its seeded initial weights, and write them beside its file."""
    start_s = time.process_time()
    make, loss_of, epochs = TASKS[name]
    path = FOLDER / f"{name}.npz"
    path.unlink(missing_ok=True)  # build() starts from the seeded weights without it
    torch.manual_seed(SEED)
    model = load_model(FOLDER / f"{name}.py")
    assert model.build is not None
    with importing_from(FOLDER):
        module = model.build().train()
    data = draw(make)
    optimizer = torch.optim.Adam(module.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        losses = []
        for chosen in torch.randperm(SEQUENCES).split(BATCH):
            optimizer.zero_grad()
            loss = loss_of(module, *(part[chosen] for part in data))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        if epoch % 5 == 4:
            print(f"{name}: epoch {epoch + 1} of {epochs}, loss {np.mean(losses):.4f}", flush=True)
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    np.savez_compressed(path, **weights)
    print(f"{name}: {time.process_time() - start_s:.0f} s of CPU, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)  # such small networks gain nothing by more
    for wanted in sys.argv[1:] or TASKS:
        train(wanted)
