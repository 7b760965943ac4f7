"""The bench file: what it may say, and the line of what it may not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from espdl_hil.device.bench import Power, Quarantine, read_bench
from espdl_hil.errors import ConfigError

WHOLE = """
[[board]]
name = "s3-1"
target = "esp32s3"
port = "/dev/serial/by-id/usb-Espressif"
serial_number = "7C:DF:A1:00:11:22"
mac = "7C-DF-A1-00-11-22"
baud = 921600
revision = ["0.1", "0.2"]
tags = ["wired", "psram8"]
power = { off = "uhubctl -a off", on = "uhubctl -a on" }
quarantine = { recoveries = 3, hours = 12 }

[[board]]
name = "p4-1"
target = "esp32p4"
port = "rfc2217://lab:4000"
revision = "3.1"
[board.power]
cycle = "relay 1"

[[board]]
name = "sim"
target = "esp32p4"
port = "simulated"
"""


def written(tmp_path, text):
    path = tmp_path / "bench.toml"
    path.write_text(text)
    return path


def test_a_bench_with_everything(tmp_path):
    first, second, third = read_bench(written(tmp_path, WHOLE)).boards
    assert (first.name, first.mac, first.baud) == ("s3-1", "7c:df:a1:00:11:22", 921600)
    assert (first.min_revision, first.max_revision) == (1, 2)
    assert first.power == Power(off="uhubctl -a off", on="uhubctl -a on")
    assert first.quarantine == Quarantine(3, 12.0)
    assert (second.min_revision, second.max_revision) == (301, 301)
    assert second.power == Power(cycle="relay 1")
    assert third.is_simulated
    assert third.quarantine == Quarantine()


BOARD = '[[board]]\nname = "a"\ntarget = "esp32s3"\nport = "/dev/a"\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no board: expected at least one"),
        ("board = 3", 1, "no board: expected at least one"),
        ("[[board]\n", 1, "no TOML"),
        (BOARD + "colour = 'red'", 5, "unknown key 'colour': expected one of name, target, port"),
        ("[lab]\nx = 1\n" + BOARD, 1, "unknown table or key 'lab'"),
        ('[[board]]\ntarget = "esp32s3"', 1, "a board has no name"),
        ('[[board]]\nname = "a"\nport = "/dev/a"', 1, "a board has no target"),
        ('[[board]]\nname = "a"\ntarget = "esp32s3"', 2, "neither port nor serial_number"),
        (BOARD.replace("esp32s3", "esp8266"), 3, "target is 'esp8266': expected one of esp32s3"),
        (BOARD.replace('"a"', '"a b"'), 2, "name is 'a b': expected letters"),
        (BOARD.replace('"a"', "7"), 2, "name is 7: expected a text"),
        (BOARD.replace("/dev/a", "/dev/*"), 4, "a board has one port, not a pattern"),
        (BOARD.replace("/dev/a", "tcp://a:1"), 4, "expected a device path, rfc2217://"),
        (BOARD + 'mac = "7c:df"', 5, "mac is '7c:df': expected six bytes"),
        (BOARD + "baud = true", 5, "baud is True: expected a whole number"),
        (BOARD + "\n\nbaud = 0", 7, "baud is 0: expected a whole number"),
        (BOARD + 'revision = "new"', 5, "revision is 'new': expected \"3.1\""),
        (BOARD + 'revision = ["3.1", "3.0"]', 5, "the first is above the second"),
        (BOARD + "revision = [3, 4]", 5, "revision is [3, 4]"),
        (BOARD + 'firmware = "mine"', 5, "firmware is 'mine': expected 'simulated'"),
        (BOARD + 'tags = "x"', 5, "tags is 'x': expected a list"),
        (BOARD + 'power = "relay"', 5, "power is 'relay': expected { cycle, on, off }"),
        (BOARD + 'power = { on = "x" }', 5, "power needs cycle, or on and off"),
        (BOARD + 'power = { blink = "x" }', 5, "unknown key power.blink"),
        (BOARD + "quarantine = { hours = 0 }", 5, "hours is 0: expected a number above 0"),
        (BOARD + "[board.quarantine]\nhours = -1", 6, "hours is -1: expected a number above 0"),
        (BOARD + BOARD, 6, "two boards have the name 'a'"),
        (BOARD + BOARD.replace('"a"', '"b"'), 8, "two boards have the port '/dev/a'"),
        (
            BOARD.replace("esp32s3", "esp32c3").replace("/dev/a", "simulated"),
            3,
            "no simulated devkit of target esp32c3",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, text, line, message):
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_bench(path)
    assert f"{path}:{line}: " in str(caught.value)
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"gone.toml cannot be read: No such file"):
        read_bench(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        read_bench(tmp_path / "binary.toml")


def test_boards_are_selected_by_target_name_and_tag(tmp_path):
    bench = read_bench(written(tmp_path, WHOLE))
    assert [board.name for board in bench.select(["esp32p4"])] == ["p4-1", "sim"]
    assert [board.name for board in bench.select(["esp32p4"], ["sim"])] == ["sim"]
    assert [board.name for board in bench.select(["esp32s3"], ["psram8"])] == ["s3-1"]
    with pytest.raises(ConfigError, match="no board has the name or tag 'psram9'"):
        bench.select(["esp32s3"], ["psram9"])
    with pytest.raises(ConfigError, match="has no board of target esp32s3 among sim"):
        bench.select(["esp32s3"], ["sim"])


def test_a_board_is_found_by_its_serial_number(tmp_path):
    board = read_bench(written(tmp_path, WHOLE)).boards[0]

    def attached(serial_number):
        return [
            SimpleNamespace(
                device="/dev/ttyACM3",
                vid=0x303A,
                pid=0x1001,
                serial_number=serial_number,
                description="",
            )
        ]

    assert board.locate(lambda: attached("7c:df:a1:00:11:22")) == "/dev/ttyACM3"
    with pytest.raises(ConfigError, match="board s3-1 is not attached"):
        board.locate(lambda: attached("7c:df:a1:00:11:23"))
    assert replace(board, port="/dev/null").locate(list) == "/dev/null"
    only = read_bench(
        written(tmp_path, '[[board]]\nname = "a"\ntarget = "esp32s3"\nserial_number = "1"\n')
    ).boards[0]
    with pytest.raises(
        ConfigError, match="a is not attached: there is no USB port with the serial"
    ):
        only.locate(lambda: attached(None))


def test_two_ways_to_name_a_board_are_one_claim(tmp_path):
    board = read_bench(written(tmp_path, WHOLE)).boards[0]
    assert board.candidate("/dev/x").names == {"/dev/x", "mac:7c:df:a1:00:11:22"}
    first, second = (
        read_bench(written(tmp_path, WHOLE)).boards[2].candidate("simulated") for _ in range(2)
    )
    assert first == second
