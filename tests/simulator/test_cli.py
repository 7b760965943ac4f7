"""``espdl-hil simulate`` as a process: its one line, its signals, its end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest
import serial

from espdl_hil.__main__ import main
from espdl_hil.device import rfc2217_handler
from espdl_hil.simulator.port import SerialPort


@pytest.fixture
def simulate():
    """Starts the command; kills what is left."""
    running = []

    def start(*arguments, stdin=subprocess.DEVNULL):
        process = subprocess.Popen(
            [sys.executable, "-m", "espdl_hil", "simulate", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def url_of(process):
    line = process.stdout.readline()
    match = re.fullmatch(r"rfc2217://127\.0\.0\.1:(\d+)\n", line)
    assert match, line + process.stderr.read()
    return line.strip(), int(match[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_line_and_ends_at_a_signal(simulate, number):
    process = simulate("--target", "esp32s3")
    _, port = url_of(process)
    process.send_signal(number)
    assert process.communicate(timeout=5) == ("", "")
    assert process.returncode == 0
    SerialPort(port).close()


def test_it_ends_with_the_pipe_of_whoever_started_it(simulate):
    process = simulate("--target", "esp32p4", stdin=subprocess.PIPE)
    url_of(process)
    process.stdin.write("what is written does not matter\n")
    process.stdin.flush()
    time.sleep(0.2)
    assert process.poll() is None
    assert process.communicate(timeout=5) == ("", "")
    assert process.returncode == 0


def test_no_input_is_no_reason_to_end(simulate):
    """Shells start background commands with /dev/null."""
    process = simulate("--target", "esp32s3")
    url_of(process)
    time.sleep(0.2)
    assert process.poll() is None


def test_it_serves_on_the_port_asked_for(simulate):
    free = SerialPort()
    number = free.number
    free.close()
    process = simulate("--target", "esp32s3", "--port", str(number))
    url, port = url_of(process)
    assert port == number
    rfc2217_handler.register()
    client = serial.serial_for_url(rfc2217_handler.event_url(url), timeout=5)
    assert b"invalid header: 0xffffffff" in client.read_until(b"invalid header: 0xffffffff")
    client.close()


def test_it_keeps_the_flash_in_a_file(simulate, tmp_path):
    file = tmp_path / "flash.bin"
    process = simulate("--target", "esp32s3", "--flash-file", str(file))
    url_of(process)
    process.terminate()
    process.communicate(timeout=5)
    assert file.stat().st_size == 16 << 20


def test_a_taken_port_is_one_message(simulate):
    port = SerialPort()
    process = simulate("--target", "esp32s3", "--port", str(port.number))
    assert process.communicate(timeout=10) == (
        "",
        f"error: cannot serve a simulated devkit on 127.0.0.1:{port.number}: "
        "Address already in use\n"
        "  hint: choose another --port, or leave it out to take a free one\n",
    )
    assert process.returncode == 2
    port.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "esp32"], "argument --target: invalid choice: 'esp32'"),
        (["--target", "esp32s3", "--port", "70000"], "argument --port: 70000 is not a TCP port"),
        ([], "the following arguments are required: --target"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["simulate", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
