"""The options: their help text, and what they are parsed into."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.plugin.dealing import deal
from espdl_hil.plugin.options import read_settings
from espdl_hil.plugin.worker import _start_worker_a_board
from espdl_hil.proof.settings import Settings

REPOSITORY = Path(__file__).parents[2]
HELP = """
streaming models on Espressif chips (hardware in the loop):
  --hil-device={serial,sim,qemu,espemu}
      run on an attached board, on a simulated devkit, or on the firmware in an emulator
      (default: serial once --target or --port is given, else sim)
  --hil-timeout-scale=FACTOR
      multiply every deadline of the devices (default: 1; for emulators, how much slower
      than a chip they boot)
  --hil-models=PATH
      add a model file or a folder of them to those in ./models; repeatable
  --hil-report=DIR
      where results.json and report.html go (default: hil-report)
  --hil-history=FILE
      where each run is appended to (default: history.sqlite3 in the user's cache, or in
      --hil-store; off: nowhere)
  --hil-summary=FILE
      write a summary in Markdown, for CI
  --hil-node-data=DIR
      write the layers' quality for Model Explorer (.json) and Netron (.onnx)
  --hil-metrics=FILE
      write all figures as OpenMetrics text
  --hil-store=DIR
      artifact store (default: the user's cache)
  --hil-jobs=N
      quantize workers at once (default: one a core)
  --hil-app=DIR
      your own app with hil_serve in it to flash: an ESP-IDF project, or a
      finished build; '{target}' is replaced (default: build the firmware with
      the ESP-IDF of this environment)
  --hil-bench=FILE
      bench file (TOML) with the boards to choose from (default: ESPDL_HIL_BENCH)
  --hil-board=NAME
      use boards of the bench with this name or tag only; repeatable
  --hil-boards=N
      use N boards side by side, each with a worker of pytest-xdist (the same as -n N)
  --hil-wait=SECONDS
      stand in the queue for boards that others use (default: 1)
  --hil-model-store={ram,flash,auto}
      keep models in the flash of a board; upload them into its memory, and write no
      flash (ram); or flash only what neither fits its memory nor lies in flash already
      (auto; default: flash)
  --hil-max-baud=RATE
      highest baud rate to agree on with the device once it answers (default: 2000000)
  --hil-overwrite
      flash a board that was looked for even if it holds another firmware; needed once for
      each board
"""


def test_help(project):
    """Whole, but for the places where lines are broken."""
    shown = project.pytest("--help").stdout
    assert "".join(HELP.split()) in "".join(shown.split())
    others = (word for word in shown.split() if word.startswith("--hil"))
    assert all(word.partition("=")[0] in HELP for word in others)


def settings(*, worker=None, **options):
    """What a command line with these options is parsed into."""
    known = {
        "--target": None,
        "--port": None,
        "--baud": None,
        "--hil-device": None,
        "--hil-models": None,
        "--hil-report": Path("hil-report"),
        "--hil-history": "off",
        "--hil-summary": None,
        "--hil-node-data": None,
        "--hil-metrics": None,
        "--hil-store": None,
        "--hil-jobs": 2,
        "--hil-app": None,
        "--hil-timeout-scale": None,
        "--hil-bench": None,
        "--hil-board": None,
        "--hil-boards": None,
        "--hil-wait": 1.0,
        "--hil-overwrite": False,
        "--hil-max-baud": None,
        "--hil-model-store": "flash",
        "--embedded-services": None,
        "--qemu-prog-path": None,
        "--qemu-extra-args": None,
    }
    given = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    assert given.keys() <= known.keys()
    config = SimpleNamespace(getoption=(known | given).__getitem__, rootpath=REPOSITORY)
    if worker:
        config.workerinput = {"workerid": worker, "workercount": 2}
    return read_settings(config)


def test_no_option_means_simulated_devkits_of_every_target():
    found = settings()
    assert found == Settings(model_paths=(REPOSITORY / "models",), jobs=2)
    assert (found.device, found.targets) == ("sim", ("esp32s3", "esp32p4"))


def test_the_history_is_in_the_users_cache_or_beside_the_artifacts(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert settings(hil_history=None).history == Path("/c/espdl-hil/history.sqlite3")
    assert settings(hil_history=None, hil_store=Path("s")).history == Path("s/history.sqlite3")
    assert settings(hil_history="h.db", hil_store=Path("s")).history == Path("h.db")
    assert settings(hil_history="off").history is None


def test_a_target_means_a_board():
    found = settings(target="esp32p4|esp32s3", port="/dev/a|/dev/b", baud="9600")
    assert found.device == "serial"
    assert found.targets == ("esp32p4", "esp32s3")
    assert found.ports == {"esp32p4": "/dev/a", "esp32s3": "/dev/b"}
    assert found.baud == 9600


def test_a_worker_writes_logs_of_its_own():
    assert settings().log_suffix == ""
    assert settings(worker="gw1").log_suffix == "-gw1"


def test_an_emulator_is_asked_for_in_our_words_or_in_pytest_embeddeds():
    ours = settings(hil_device="qemu", qemu_prog_path="/q", qemu_extra_args="-d 'guest errors'")
    assert (ours.device, ours.targets, ours.substrate) == ("qemu", ("esp32s3",), "emulated")
    assert (ours.emulator, ours.emulator_arguments) == ("/q", ("-d", "guest errors"))
    theirs = settings(embedded_services="idf,qemu", target="esp32c3")
    assert (theirs.device, theirs.targets) == ("qemu", ("esp32c3",))
    assert settings(embedded_services="idf,qemu", hil_device="sim").device == "sim"
    assert settings(embedded_services="esp,idf", target="esp32s3").device == "serial"


BENCH = """
[[board]]
name = "a"
target = "esp32p4"
port = "/dev/a"
tags = ["new"]
[[board]]
name = "b"
target = "esp32s3"
port = "/dev/b"
[[board]]
name = "c"
target = "esp32p4"
port = "/dev/c"
"""


@pytest.fixture
def bench(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(BENCH)
    return path


def names(found):
    return [board.name for board in found.boards]


def test_a_bench_means_its_boards(bench, monkeypatch):
    found = settings(hil_bench=bench)
    assert (found.device, found.targets) == ("serial", ("esp32p4", "esp32s3"))
    assert names(found) == ["a", "b", "c"]
    assert names(settings(hil_bench=bench, target="esp32s3")) == ["b"]
    assert names(settings(hil_bench=bench, hil_board=["new", "b"])) == ["a", "b"]
    monkeypatch.setenv("ESPDL_HIL_BENCH", str(bench))
    assert names(settings()) == ["a", "b", "c"]
    assert settings(hil_device="sim").boards == ()  # the variable only offers it
    assert names(settings(target="esp32s3", port="/dev/x")) == ["/dev/x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "esp32c3"}, "has no board of target esp32c3"),
        ({"hil_board": ["old"]}, "no board has the name or tag 'old'"),
        ({"hil_device": "sim"}, "--hil-bench and --hil-device sim both say what to run on"),
        ({"target": "esp32p4", "port": "/dev/x"}, "--hil-bench and --port both say"),
    ],
)
def test_what_a_bench_cannot_be_asked_for(bench, options, message):
    with pytest.raises(ConfigError, match=message):
        settings(hil_bench=bench, **options)
    with pytest.raises(ConfigError, match="--hil-board needs a bench file"):
        settings(hil_board=["a"])


def test_two_boards_of_one_target_are_both_used():
    """The first is not dropped, as by a mapping from target to port."""
    found = settings(target="esp32s3|esp32s3", port="A|B")
    assert [(board.target, board.port) for board in found.boards] == [
        ("esp32s3", "A"),
        ("esp32s3", "B"),
    ]
    assert deal(found, ["esp32s3"], 0, 2) == deal(found, ["esp32s3"], 1, 2) == ("esp32s3",)
    with pytest.raises(ConfigError, match="--port names 2 boards of esp32s3, and one process"):
        deal(found, ["esp32s3"], 0, 1)
    with pytest.raises(ConfigError, match="3 workers cannot share 2 boards of esp32s3"):
        deal(found, ["esp32s3"], 2, 3)


def test_boards_are_dealt_to_workers(bench):
    found = settings(hil_bench=bench)
    targets = ["esp32s3", "esp32p4"]
    dealt = [deal(found, targets, seat, 3) for seat in range(3)]
    assert dealt == [("esp32s3",), ("esp32p4",), ("esp32p4",)]
    assert deal(found, targets, 0, 1) == tuple(targets)
    assert deal(settings(), targets, 3, 4) == tuple(targets)  # simulated ones are no scarce thing


class Line(SimpleNamespace):
    """A command line, in the controller or in a worker."""

    def getoption(self, name):
        return self.boards


def test_a_worker_a_board_without_typing_n():
    line = Line(boards=4, option=SimpleNamespace(numprocesses=None))
    _start_worker_a_board(line)
    assert line.option.numprocesses == 4
    _start_worker_a_board(line)  # the same is said twice
    line.boards = 3
    with pytest.raises(pytest.UsageError, match="--hil-boards 3 and -n 4 both say"):
        _start_worker_a_board(line)
    worker = Line(
        boards=4, option=SimpleNamespace(numprocesses=None), workerinput={"workerid": "gw0"}
    )
    _start_worker_a_board(worker)
    assert worker.option.numprocesses is None
    with pytest.raises(pytest.UsageError, match="pip install pytest-xdist"):
        _start_worker_a_board(Line(boards=2, option=SimpleNamespace()))
    _start_worker_a_board(Line(boards=None, option=SimpleNamespace()))
