import math

import numpy as np
import pytest

from espdl_hil.compare import EXACT, Fidelity, NotComparableError, Tolerance, compare


def ramp(shape=(1, 8, 4), dtype=np.int8):
    return (np.arange(math.prod(shape)) % 100).astype(dtype).reshape(shape)


def test_equal_tensors():
    found = compare(ramp(), ramp())
    assert found.equal
    assert found.first is None
    assert str(found) == "all 32 equal"


def test_names_the_first_difference():
    observed = ramp()
    observed[0, 5, 2] += 2
    observed[0, 7, 0] -= 1
    found = compare(ramp(), observed, chunk=3, first_frame=24)
    assert not found.equal
    assert (found.differing, found.beyond, found.max_lsb) == (2, 2, 2)
    assert found.first.index == (0, 5, 2)
    assert (found.first.chunk, found.first.frame, found.first.channel) == (3, 29, 2)
    assert str(found) == (
        "2 of 32 differ, max 2 LSB; first at frame 29, channel 2: expected 22, observed 24"
    )


def test_tolerance_still_counts_what_differs_and_names_what_is_beyond():
    observed = ramp()
    observed[0, 0, 1] += 1
    observed[0, 4, 3] += 2
    within, beyond = (compare(ramp(), observed, Tolerance(max_lsb=n)) for n in (2, 1))
    assert within.equal
    assert within.differing == 2
    assert within.first.index == (0, 0, 1)
    assert not beyond.equal
    assert beyond.beyond == 1
    assert beyond.first.index == (0, 4, 3)


def test_extremes_do_not_wrap():
    low, high = (np.full((1, 2, 1), v, np.int16) for v in (-32768, 32767))
    assert compare(low, high).max_lsb == 65535


def test_other_frame_axes():
    observed = ramp((1, 4, 8))
    observed[0, 3, 6] += 1
    assert compare(ramp((1, 4, 8)), observed, frame_axis=2).first.frame == 6
    assert compare(ramp((1, 4, 8)), observed, frame_axis=2).first.channel == 3
    assert compare(ramp((1, 4, 8)), observed, frame_axis=-1).first.frame == 6
    timeless = compare(ramp((1, 4, 8)), observed, frame_axis=None, first_frame=9)
    assert (timeless.first.frame, timeless.first.channel) == (9, 6)


def test_scalars():
    found = compare(np.array(3, np.int8), np.array(4, np.int8))
    assert (found.first.frame, found.first.channel, found.first.index) == (0, 0, ())


@pytest.mark.parametrize(
    ("observed", "text"),
    [
        (ramp((1, 8, 5)), "chunk 2: expected int8[1, 8, 4], observed int8[1, 8, 5]"),
        (ramp().astype(np.int16), "chunk 2: expected int8[1, 8, 4], observed int16[1, 8, 4]"),
        (ramp((1, 4, 8)), "chunk 2: expected int8[1, 8, 4], observed int8[1, 4, 8]"),
    ],
)
def test_other_shape_or_type_is_an_error(observed, text):
    with pytest.raises(NotComparableError) as caught:
        compare(ramp(), observed, chunk=2)
    assert str(caught.value) == text


def test_nothing_is_never_equal():
    found = compare(ramp((1, 0, 4)), ramp((1, 0, 4)))
    assert not found.compared
    assert not found.equal
    assert str(found) == "not compared: no elements"


def test_floats_are_relative():
    expected = np.array([[1.0, 1e-8, -2.0]], np.float32)
    near = (expected * np.float32(1 + 5e-7)).astype(np.float32)
    far = (expected * np.float32(1 + 1e-5)).astype(np.float32)
    assert compare(expected, near).equal
    found = compare(expected, far)
    assert found.differing == 3
    assert found.max_lsb is None
    assert found.max_relative == pytest.approx(1e-5, rel=0.02)
    assert compare(expected, far, Tolerance(relative=1e-4)).equal
    assert "relative; first at frame 0" in str(found)


def test_floats_that_are_not_numbers():
    strange = np.array([[np.nan, np.inf, -np.inf, 0.0]], np.float32)
    assert compare(strange, strange).equal
    plain = np.array([[0.0, 1.0, np.inf, np.nan]], np.float32)
    assert compare(strange, plain).differing == 4


def test_fidelity_adds_up():
    rng = np.random.default_rng(0)
    a = rng.normal(size=100)
    b = a + rng.normal(size=100) * 0.1
    whole = Fidelity.of(a, b)
    parts = Fidelity.of(a[:30], b[:30]) + Fidelity.of(a[30:], b[30:])
    assert parts.sqnr_db == pytest.approx(whole.sqnr_db)
    assert parts.cosine == pytest.approx(np.corrcoef(a, b)[0, 1], abs=0.01)
    assert Fidelity.of(np.zeros(4), np.ones(4)).sqnr_db is None
    assert Fidelity.of(np.zeros(4), np.ones(4)).cosine is None


def test_exact_is_the_default():
    observed = ramp()
    observed[0, 0, 0] += 1
    assert not compare(ramp(), observed).equal
    assert EXACT.max_lsb == 0
