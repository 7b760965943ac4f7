import pytest

from espdl_hil.compare import Tolerance, parse_tolerance
from espdl_hil.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Tolerance()),
        ("exact", Tolerance()),
        ("1", Tolerance(max_lsb=1)),
        ("1lsb", Tolerance(max_lsb=1)),
        (" 2 LSB ", Tolerance(max_lsb=2)),
        ("1e-5rel", Tolerance(relative=1e-5)),
        ("1lsb, 0.001 rel", Tolerance(max_lsb=1, relative=0.001)),
    ],
)
def test_reads_what_people_write(text, expected):
    assert parse_tolerance(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "1lsb,2lsb", "close", "1e-5", "1lsb;2rel", "2rel"]
)
def test_refuses_anything_else(text):
    with pytest.raises(ConfigError, match="tolerance"):
        parse_tolerance(text)


def test_message_says_what_to_write():
    with pytest.raises(ConfigError) as caught:
        parse_tolerance("close")
    assert str(caught.value) == (
        "tolerance 'close' is not understood\n"
        "  hint: write 0 (exact), 1lsb, 1e-5rel, or 1lsb,1e-5rel"
    )


def test_prints_briefly():
    assert str(Tolerance()) == "exact"
    assert str(Tolerance(max_lsb=1, relative=1e-3)) == "1 LSB, float 0.001"
