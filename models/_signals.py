"""Synthesized signals with their labels: speech-like sounds, noise, and motion. NumPy only.

Everything is drawn from the generator that is given, so that the same seed gives the same
recording and the same labels: a model's ``metric`` draws again what its ``stimulus`` drew.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

RATE_HZ = 8000
HOP = 160  # samples: a frame every 20 ms
WINDOW = 256
BANDS = 16
HARMONICS = 30
FORMANT_WIDTH_HZ = (90.0, 130.0, 200.0)
UNLABELLED = -1
FLOOR = 1.0  # magnitude below which silence is silence

# A word is vowels, each with the frequencies of its first three formants, Hz.
VOWELS = {
    "a": (730.0, 1090.0, 2440.0),
    "i": (270.0, 2290.0, 3010.0),
    "u": (300.0, 870.0, 2240.0),
    "e": (530.0, 1840.0, 2480.0),
    "o": (570.0, 840.0, 2410.0),
}
WORDS = ("ia", "ou", "ae")  # those that the keyword spotter knows; class 0 is none of them
OTHERS = ("ai", "uo", "ea", "ui", "oa")  # said too, to be ignored


def voice(random: np.random.Generator, vowels: str, samples: int) -> Array:
    """Return a word: harmonics of a gliding pitch under formants that move from vowel to vowel."""
    speaker = random.uniform(0.93, 1.07)  # length of the vocal tract
    pitch_hz = random.uniform(95, 220) * np.linspace(1.0, random.uniform(0.8, 1.1), samples)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    at = np.linspace(0, len(vowels) - 1, samples)
    formants = [
        np.interp(at, range(len(vowels)), [VOWELS[vowel][k] * speaker for vowel in vowels])
        for k in range(len(FORMANT_WIDTH_HZ))
    ]
    sound = np.zeros(samples)
    for harmonic in range(1, HARMONICS + 1):
        frequency = harmonic * pitch_hz
        level = sum(
            1.0 / (1.0 + ((frequency - formant) / width) ** 2)
            for formant, width in zip(formants, FORMANT_WIDTH_HZ, strict=True)
        )
        sound += np.where(frequency < RATE_HZ / 2, level, 0.0) * np.sin(harmonic * phase)
    rise = np.minimum(1.0, np.minimum(np.arange(samples), np.arange(samples)[::-1]) / 200)
    return sound * rise * random.uniform(0.6, 1.4)


def noise(random: np.random.Generator, samples: int) -> Array:
    """Return noise whose spectrum falls towards high frequencies, as that of cars does."""
    white = np.fft.rfft(random.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    shaped = white / np.sqrt(1.0 + (frequency / random.uniform(300, 1500)) ** 2)
    coloured = np.fft.irfft(shaped, samples)
    unit: Array = coloured / coloured.std()
    return unit


def bands(sound: Array, frames: int) -> Array:
    """Return the magnitude of each mel band in each frame, ``(BANDS, frames)``."""
    padded = np.concatenate([np.zeros(WINDOW - HOP), sound])  # a frame ends with its hop: causal
    starts = np.arange(frames)[:, None] * HOP
    spectra = np.fft.rfft(padded[starts + np.arange(WINDOW)] * np.hanning(WINDOW))
    edges = 700 * (np.exp(np.linspace(np.log(1 + 80 / 700), np.log(1 + 3900 / 700), BANDS + 2)) - 1)
    frequency = np.fft.rfftfreq(WINDOW, 1 / RATE_HZ)
    filters = np.stack(
        [
            np.interp(frequency, edges[k : k + 3], (0.0, 1.0, 0.0), left=0.0, right=0.0)
            for k in range(BANDS)
        ]
    )
    energy: Array = filters @ (np.abs(spectra) ** 2).T
    return np.sqrt(energy + 1e-6)


def features(magnitudes: Array) -> Array:
    """Return log magnitudes, roughly zero mean and unit variance, as networks want them."""
    return (np.log(magnitudes) - 2.3) / 1.3


def talk(
    random: np.random.Generator, frames: int, vocabulary: tuple[str, ...]
) -> tuple[Array, list[tuple[int, int, str]]]:
    """Return clean speech, ``(frames * HOP,)``, and its words: first frame, end frame, vowels."""
    sound = np.zeros(frames * HOP)
    said = []
    frame = int(random.integers(2, 6))
    while (length := int(random.integers(10, 15))) + frame < frames:
        word = vocabulary[random.integers(len(vocabulary))]
        sound[frame * HOP : (frame + length) * HOP] = voice(random, word, length * HOP)
        said.append((frame, frame + length, word))
        frame += length + int(random.integers(4, 10))
    return sound, said


def keywords(random: np.random.Generator, frames: int) -> tuple[Array, Labels]:
    """Return features ``(BANDS, frames)`` of words in noise, and each frame's class.

    A frame is labelled with a word once three fifths of it were heard; before that it is not
    judged, for nobody can know.
    """
    sound, said = talk(random, frames, WORDS + WORDS + OTHERS)
    mixed = sound + noise(random, sound.size) * random.uniform(0.4, 1.2)
    labels = np.zeros(frames, np.int64)
    for start, end, word in said:
        known = start + (end - start) * 3 // 5
        labels[start:known] = UNLABELLED
        labels[known:end] = WORDS.index(word) + 1 if word in WORDS else 0
        labels[end : end + 2] = UNLABELLED
    return features(bands(mixed, frames)), labels


def noisy_speech(random: np.random.Generator, frames: int) -> tuple[Array, Array]:
    """Return features of speech in noise, and of the speech alone; each ``(BANDS, frames)``."""
    sound, _ = talk(random, frames, WORDS + OTHERS)
    mixed = sound + noise(random, sound.size) * random.uniform(0.4, 1.2)
    return features(bands(mixed, frames) + FLOOR), features(bands(sound, frames) + FLOOR)


MOTION_HZ = 25
ACTIVITIES = ("rest", "walk", "run", "shake")


def motion(random: np.random.Generator, frames: int) -> tuple[Array, Labels]:
    """Return accelerometer and gyroscope ``(6, frames)`` of changing activities, and their classes.

    Frames shortly behind a change are not judged.
    """
    signal = np.zeros((6, frames))
    labels = np.zeros(frames, np.int64)
    gravity = random.standard_normal(3)
    gravity /= np.linalg.norm(gravity)
    start = 0
    while start < frames:
        end = min(frames, start + int(random.integers(24, 48)))
        kind = int(random.integers(len(ACTIVITIES)))
        signal[:, start:end] = _move(random, ACTIVITIES[kind], end - start)
        labels[start:end] = kind
        labels[start : min(end, start + 12)] = UNLABELLED
        start = end
    signal[:3] += gravity[:, None]
    return signal + 0.25 * random.standard_normal(signal.shape), labels


def _move(random: np.random.Generator, activity: str, frames: int) -> Array:
    """Return one activity, ``(6, frames)``: a step frequency with its overtones, axis by axis."""
    time_s = np.arange(frames) / MOTION_HZ
    hz, size = {
        "rest": (0.3, 0.03),
        "walk": (random.uniform(1.4, 2.4), random.uniform(0.3, 0.9)),
        "run": (random.uniform(2.2, 3.6), random.uniform(0.6, 1.5)),
        "shake": (random.uniform(3.4, 6.0), random.uniform(0.4, 1.5)),
    }[activity]
    moved = np.zeros((6, frames))
    for axis in range(6):
        for overtone, level in ((1, 1.0), (2, 0.4)):
            phase = random.uniform(0, 2 * np.pi)
            amount = size * level * random.uniform(0.3, 1.0)
            moved[axis] += amount * np.sin(2 * np.pi * overtone * hz * time_s + phase)
    return moved


def balanced_accuracy(scores: Array, labels: Labels) -> float:
    """Return the mean over classes of the share of frames that are recognized.

    Args:
        scores: ``(classes, frames)``, or fewer frames of a whole stride.
        labels: A class for each input frame; ``UNLABELLED`` ones are not judged.
    """
    judged = labels[:: max(1, len(labels) // scores.shape[1])][: scores.shape[1]]
    found = scores.argmax(axis=0)
    shares = [(found[judged == k] == k).mean() for k in range(len(scores)) if (judged == k).any()]
    return float(np.mean(shares))


def improvement_db(cleaned: Array, mixed: Array, clean: Array) -> float:
    """Return how much less energy the error of *cleaned* has than that of *mixed*, in dB."""
    before, after = ((x - clean) ** 2 for x in (mixed, cleaned))
    return float(10 * np.log10(before.sum() / after.sum()))
