"""Resize of int8, nearest and linear."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError


def resize(lab, x, chip, *, exponents=(-3, -3), sizes=None, scales=None, mode, transform):
    others = [None, None, None]
    if scales is not None:
        others[1] = lab.Q(np.array((1, 1, *scales), np.float32), (0,), True)
    else:
        others[2] = lab.indices(1, x.shape[-1], *sizes)
    while others[-1] is None:
        others.pop()
    return lab.one(
        "Resize",
        [lab.q(x, exponents[0], x.dtype), *others],
        x.dtype,
        exponents[1],
        chip=chip,
        mode=mode,
        coordinate_transformation_mode=transform,
        nearest_mode="floor",
    )


@pytest.mark.parametrize("scales", [(2, 2), (3, 1), (1.5, 2.5), (0.5, 0.5)])
@pytest.mark.parametrize("channels", [1, 15, 16, 17])
def test_nearest(lab, rng, chip, scales, channels):
    x = rng.integers(-128, 128, (1, 4, 6, channels)).astype(np.int8)
    if chip != "c" and channels < 16 and scales != (2, 2):
        with pytest.raises(UnsupportedOpError, match=r"garbage below 16 channels .* pad to 16"):
            resize(lab, x, chip, scales=scales, mode="nearest", transform="asymmetric")
        return
    found = resize(lab, x, chip, scales=scales, mode="nearest", transform="asymmetric")
    rows, cols = (
        np.minimum((np.arange(int(n * s)) / s).astype(int), n - 1)
        for n, s in zip((4, 6), scales, strict=True)
    )
    assert np.array_equal(found[0], x[0][np.ix_(rows, cols)])


def test_nearest_requantizes_with_ties(lab, chip):
    x = np.repeat(np.array([-3, -1, 1, 3], np.int8), 16).reshape(1, 4, 16)
    options = {"scales": (2,), "mode": "nearest", "transform": "asymmetric"}
    if chip == "esp32p4":
        with pytest.raises(UnsupportedOpError, match="does not set the rounding mode"):
            resize(lab, x, chip, exponents=(-3, -2), **options)
        return
    found = resize(lab, x, chip, exponents=(-3, -2), **options)
    assert found[0, ::2, 0].tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize("transform", ["half_pixel", "align_corners"])
@pytest.mark.parametrize("sizes", [(7, 9), (3, 4), (2, 13)])
def test_linear(lab, rng, chip, transform, sizes):
    x = rng.integers(-128, 128, (1, 4, 6, 3)).astype(np.int8)
    found = resize(lab, x, chip, sizes=sizes, mode="linear", transform=transform)
    wanted = x[0].astype(float)
    for axis, (n, m) in enumerate(zip((4, 6), sizes, strict=True)):
        index = np.arange(m)
        place = (
            index * (n - 1) / (m - 1)
            if transform == "align_corners"
            else (index + 0.5) * n / m - 0.5
        )
        place = place.clip(0, n - 1)
        left = np.minimum(place.astype(int), n - 2)
        weight = (place - left).reshape(-1, *(1,) * (2 - axis))
        wanted = wanted.take(left, axis) * (1 - weight) + wanted.take(left + 1, axis) * weight
    assert (np.abs(found[0] - wanted) <= 0.501).all()


def test_linear_saturates_when_the_output_is_finer(lab, chip):
    x = np.array([-128, 127], np.int8).reshape(1, 2, 1)
    found = resize(
        lab, x, chip, exponents=(-3, -5), sizes=(4,), mode="linear", transform="half_pixel"
    )
    assert found[0, [0, -1], 0].tolist() == [-128, 127]


def test_corners_of_a_single_element_are_refused(lab):
    x = np.zeros((1, 2, 1), np.int8)
    with pytest.raises(UnsupportedOpError, match="align_corners to a length of 1"):
        resize(lab, x, "c", sizes=(1,), mode="linear", transform="align_corners")


def test_int16_is_refused(lab):
    x = np.zeros((1, 2, 1), np.int16)
    with pytest.raises(UnsupportedOpError, match="Resize"):
        resize(lab, x, "c", scales=(2,), mode="nearest", transform="asymmetric")
