"""A labgrid place as a board: coordinator and exporter on this machine, devkits behind them."""

import contextlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from espdl_hil.cli import main
from espdl_hil.device.bench import BenchBoard, read_bench
from espdl_hil.device.labgrid_place import LabgridPlace
from espdl_hil.errors import BusyError, ConfigError
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.settings import Settings
from espdl_hil.simulator import Devkit

needs_labgrid = pytest.mark.skipif(
    shutil.which("labgrid-client") is None,
    reason="needs labgrid: labgrid-client is not on PATH (pipx install labgrid)",
)
NOT_THERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "locks"))


class Labgrid:
    """A coordinator, an exporter with two places, and what another user does with them."""

    def __init__(self, address):
        self.address = address

    def url(self, place):
        return f"labgrid://{place}?coordinator={self.address}"

    def client(self, place, *arguments, user="someone"):
        return subprocess.run(
            ["labgrid-client", "-x", self.address, "-p", place, *arguments],
            env={**os.environ, "LG_USERNAME": user},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout

    def holder(self, place):
        told = self.client(place, "show")
        return told.partition("acquired: ")[2].partition("\n")[0]


class Relay(http.server.BaseHTTPRequestHandler):
    """A switch in the network, as labgrid's model ``simplerest`` drives it."""

    def do_GET(self):
        self.server.seen.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def relay():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def devkit():
    with Devkit("esp32s3") as kit:
        yield kit


def started(stack, folder, says, *command):
    """A service of labgrid, once it says that it is up."""
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    stack.enter_context(process)
    stack.callback(process.terminate)
    assert any(says in line for line in process.stdout), f"{command} has ended"
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    stack.callback(reader.join)
    stack.callback(process.terminate)


@pytest.fixture(scope="module")
def labgrid(tmp_path_factory, devkit, relay):
    folder = tmp_path_factory.mktemp("labgrid")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    port = f"NetworkSerialPort: {{host: 127.0.0.1, port: {devkit.port}, speed: 115200}}"
    switch = f"http://127.0.0.1:{relay.server_address[1]}/{{index}}/{{value}}"
    (folder / "exports.yaml").write_text(
        f"s3:\n  {port}\n"
        f"  NetworkPowerPort: {{model: simplerest, host: '{switch}', index: 7}}\n"
        f"bare:\n  {port}\n"
        f"odd:\n  NetworkPowerPort: {{model: simplerest, host: '{switch}', index: 8}}\n"
    )
    with contextlib.ExitStack() as stack:
        started(stack, folder, "ready", "labgrid-coordinator", "-l", address)
        exporter = ("labgrid-exporter", "-c", address, "-n", "here", "exports.yaml")
        started(stack, folder, "connected", *exporter)
        made = Labgrid(address)
        for place in ("s3", "bare", "odd"):
            made.client(place, "create")
            made.client(place, "add-match", f"here/{place}/*")
        yield made


@needs_labgrid
def test_a_run_acquires_its_place_and_releases_it(labgrid, case, rig, tmp_path):
    (tmp_path / "bench.toml").write_text(
        f'[[board]]\nname = "s3-1"\ntarget = "esp32s3"\nport = "{labgrid.url("s3")}"\n'
        'firmware = "simulated"\n'
    )
    boards = read_bench(tmp_path / "bench.toml").boards
    settings = Settings(device="serial", boards=boards, report=tmp_path)
    run = Rig(settings, [case])
    run._results = rig._results
    with contextlib.closing(run):
        run.find_ports()
        assert labgrid.holder("s3").partition("/")[0] == socket.gethostname()
        assert run.ports["esp32s3"].startswith("rfc2217://127.0.0.1:")
        run.bring_up()
        Hil(case, RowBook(run, command="pytest")).verify()
    assert labgrid.holder("s3") == "None"


@needs_labgrid
def test_power_is_switched_by_the_places_own_switch(labgrid, relay):
    with LabgridPlace(labgrid.url("s3"), 0.0, print) as place:
        assert place.power_cycle()
    assert relay.seen == ["/7/0", "/7/1"]
    with LabgridPlace(labgrid.url("bare"), 0.0, print) as place:
        assert not place.power_cycle()


@needs_labgrid
def test_a_place_that_another_has_is_waited_for(labgrid):
    labgrid.client("s3", "acquire", user="other")
    told = []
    with pytest.raises(BusyError, match=r"labgrid place s3: it is acquired by \S+/other"):
        LabgridPlace(labgrid.url("s3"), 0.0, told.append)
    timer = threading.Timer(1.0, labgrid.client, ("s3", "release"), {"user": "other"})
    timer.start()
    LabgridPlace(labgrid.url("s3"), 60.0, told.append).release()
    assert told[0].startswith("waiting for labgrid place s3: acquired by ")
    timer.join()
    assert labgrid.holder("s3") == "None"


@needs_labgrid
def test_a_killed_run_releases_its_place(labgrid):
    script = (
        "import sys, time; from espdl_hil.device.labgrid_place import LabgridPlace\n"
        "place = LabgridPlace(sys.argv[1], 0.0, print); print(place.port, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, labgrid.url("s3")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as victim:
        assert victim.stdout.readline().startswith(b"rfc2217://")
        os.killpg(victim.pid, signal.SIGKILL)
    started_s = time.monotonic()
    LabgridPlace(labgrid.url("s3"), 15.0, print).release()
    assert time.monotonic() - started_s < 15


@needs_labgrid
def test_bench_check_looks_at_a_place_and_gives_it_back(labgrid, tmp_path, capsys):
    boards = [("s3-1", labgrid.url("s3")), ("lost", labgrid.url("nowhere"))]
    (tmp_path / "bench.toml").write_text(
        "".join(f'[[board]]\nname = "{n}"\ntarget = "esp32s3"\nport = "{p}"\n' for n, p in boards)
    )
    assert main(["bench", "check", "--bench", str(tmp_path / "bench.toml")]) == 1
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert first.endswith("free")
    assert second.endswith("labgrid place nowhere: place pattern nowhere matches nothing")
    assert labgrid.holder("s3") == "None"


@needs_labgrid
@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("nowhere", ConfigError, "place pattern nowhere matches nothing"),
        ("odd", ConfigError, "expected one serial port among its resources, found: none"),
        (f"s3?coordinator={NOT_THERE}", BusyError, f"no answer from the coordinator {NOT_THERE}"),
    ],
)
def test_what_can_be_wrong(labgrid, place, kind, message):
    url = f"labgrid://{place}" if "?" in place else labgrid.url(place)
    with pytest.raises(kind, match=message):
        LabgridPlace(url, 0.0, print)


def test_without_labgrid_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="labgrid-client is not on PATH") as caught:
        LabgridPlace("labgrid://s3", 0.0, print)
    assert "pipx install labgrid" in str(caught.value)


def test_a_claim_of_a_place_is_one_whatever_its_coordinator_is_called():
    boards = [
        BenchBoard("a", "esp32s3", f"labgrid://s3{rest}") for rest in ("", "?coordinator=b:1")
    ]
    assert len({board.candidate(board.locate()).names for board in boards}) == 1
