"""What injected faults do to bytes: exactly what they say, and the same each time."""

from __future__ import annotations

import pytest

from espdl_hil.simulator.faults import (
    BrownoutLoop,
    CorruptBytes,
    DropBytes,
    DuplicateBytes,
    Panic,
    SilentPort,
    SlowPort,
    StuckBoot,
    WrongShift,
)
from espdl_hil.simulator.injection import Injection

DATA = bytes(range(256)) * 40


@pytest.fixture
def injection():
    return Injection()


def in_pieces(function, data, size):
    return b"".join(function(data[at : at + size]) for at in range(0, len(data), size))


def test_nothing_injected_changes_nothing(injection):
    assert injection.to_host(DATA) == injection.to_device(DATA) == DATA


def test_dropped_bytes_are_gone(injection):
    injection.inject(DropBytes(0.1))
    received = injection.to_host(DATA)
    assert 0.85 * len(DATA) < len(received) < 0.95 * len(DATA)


def test_corrupted_bytes_are_other_bytes(injection):
    injection.inject(CorruptBytes(0.1))
    received = injection.to_host(DATA)
    assert len(received) == len(DATA)
    changed = sum(a != b for a, b in zip(received, DATA, strict=True))
    assert 0.05 * len(DATA) < changed < 0.15 * len(DATA)


def test_every_value_can_replace_every_value(injection):
    injection.inject(CorruptBytes(1.0))
    received = injection.to_host(bytes(50_000))
    assert set(received) == set(range(1, 256))


def test_duplicated_bytes_come_twice(injection):
    injection.inject(DuplicateBytes(1.0))
    assert injection.to_host(b"abc") == b"aabbcc"


@pytest.mark.parametrize("kind", [DropBytes, CorruptBytes, DuplicateBytes])
def test_damage_depends_on_the_seed_and_not_on_the_pieces(kind):
    results = set()
    for size in (1, 7, len(DATA)):
        injection = Injection()
        injection.inject(kind(0.05, seed=3))
        results.add(in_pieces(injection.to_host, DATA, size))
    assert len(results) == 1
    other = Injection()
    other.inject(kind(0.05, seed=4))
    assert other.to_host(DATA) not in results


def test_damage_has_a_direction(injection):
    injection.inject(DropBytes(1.0, direction="to_device"))
    assert injection.to_host(DATA) == DATA
    assert injection.to_device(DATA) == b""


def test_the_directions_are_damaged_independently(injection):
    injection.inject(DropBytes(0.5))
    assert injection.to_host(DATA) != injection.to_device(DATA)


def test_a_port_goes_silent(injection):
    injection.inject(SilentPort(after_bytes=10))
    assert in_pieces(injection.to_host, DATA[:100], 4) == DATA[:10]
    assert injection.to_host(b"more") == b""
    assert injection.to_device(b"still heard") == b"still heard"


def test_the_slowest_port_counts(injection):
    assert injection.bytes_per_s is None
    injection.inject(SlowPort(1000))
    injection.inject(SlowPort(500))
    assert injection.bytes_per_s == 500


def test_a_panic_comes_once_at_its_byte(injection):
    injection.inject(Panic(10))
    injection.begin_boot()
    assert injection.bytes_until_panic(6) is None
    assert injection.bytes_until_panic(6) == 4
    injection.begin_boot()
    assert injection.bytes_until_panic(1000) is None


def test_a_panic_in_every_boot(injection):
    injection.inject(Panic(0, boots=None))
    for _ in range(3):
        injection.begin_boot()
        assert injection.bytes_until_panic(1) == 0


def test_faults_of_the_boot_are_counted_off(injection):
    injection.inject(StuckBoot(boots=2))
    assert injection.strike(BrownoutLoop) is None
    assert [injection.strike(StuckBoot) for _ in range(3)] == [StuckBoot(2), StuckBoot(2), None]
    injection.inject(BrownoutLoop())
    assert all(injection.strike(BrownoutLoop) for _ in range(5))


def test_clearing_ends_everything(injection):
    injection.inject(DropBytes(1.0))
    injection.inject(StuckBoot())
    injection.clear()
    assert injection.to_host(DATA) == DATA
    assert injection.strike(StuckBoot) is None


def test_faults_are_chosen_by_model(injection):
    everywhere, here = WrongShift("a"), WrongShift("a", model="here")
    injection.inject(everywhere)
    injection.inject(here)
    assert injection.active(WrongShift, "here") == (everywhere, here)
    assert injection.active(WrongShift, "there") == (everywhere,)
    assert injection.active(WrongShift) == (everywhere, here)
