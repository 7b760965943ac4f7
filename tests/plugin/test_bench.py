"""Runs that share the boards of a lab: simulated devkits behind real sockets and real claims."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from espdl_hil.simulator import Devkit, build_app

from .conftest import REPOSITORY

BOARDS_UNAVAILABLE = 75
TEST = """
import os, time

def test_streams(hil):
    hil.verify()
    with open("order.txt", "a") as file:
        file.write(os.environ.get("JOB", "") + " " + hil.dut.info.port + "\\n")
    time.sleep(float(os.environ.get("HOLD_S", "0")))
"""


@pytest.fixture
def project(project, tmp_path):
    project.write("test_mine.py", TEST)
    project.environment["ESPDL_HIL_RUNTIME_DIR"] = str(tmp_path / "locks")
    return project


@pytest.fixture
def bench(project):
    """Serves devkits and writes their bench file; returns the options that name it."""
    with contextlib.ExitStack() as stack:

        def serve(*targets):
            lines = []
            for number, target in enumerate(targets, 1):
                devkit = stack.enter_context(Devkit(target, mac=f"7c:df:a1:00:11:{number:02x}"))
                lines += [
                    "[[board]]",
                    f'name = "board-{number}"',
                    f'target = "{target}"',
                    f'port = "{devkit.url}"',
                    f'mac = "7c:df:a1:00:11:{number:02x}"',
                    'firmware = "simulated"',
                ]
            project.write("bench.toml", "\n".join(lines))
            return ("--hil-models=mine.py", "--hil-bench=bench.toml")

        yield serve


def rows(project):
    return json.loads((project.folder / "hil-report" / "results.json").read_text())["rows"]


def test_each_worker_has_a_board_and_each_row_names_it(project, bench):
    project.write("mine.py", (project.folder / "mine.py").read_text().replace("(3,)", "(3, 6)"))
    project.write("other.py", (project.folder / "mine.py").read_text().replace("mine", "other"))
    options = (*bench("esp32s3", "esp32s3"), "--hil-models=other.py")
    run = project.pytest(*options, "--hil-boards=2")
    assert run.returncode == 0, run.stdout + run.stderr
    found = {row["id"]: row["board"] for row in rows(project)}
    assert len(found) == 4
    assert set(found.values()) == {"board-1", "board-2"}
    for model in ("mine", "other"):  # a recipe stays on the board that holds it
        assert len({board for case, board in found.items() if f"-{model}-" in case}) == 1
    assert "hil: 4 cases on esp32s3 on board-1 (rfc2217://" in run.stdout


def test_workers_that_are_quicker_than_the_controller_keep_their_logs(project, bench):
    project.write("other.py", (project.folder / "mine.py").read_text().replace("mine", "other"))
    project.write(
        "conftest.py",
        """
        import pathlib, time, pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_xdist_node_collection_finished():
            logs, until = pathlib.Path("hil-report/logs"), time.monotonic() + 30
            while not any("Multicore" in log.read_text() for log in logs.glob("*")):
                assert time.monotonic() < until
                time.sleep(0.1)
        """,
    )
    logs = project.folder / "hil-report" / "logs"
    logs.mkdir(parents=True)
    for name in ("esp32s3-gw0.log", "esp32s3-gw7.log"):
        (logs / name).write_text("Multipart, of an older run")
    run = project.pytest(*bench("esp32s3", "esp32s3"), "--hil-models=other.py", "--hil-boards=2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert sorted(log.name for log in logs.iterdir()) == ["esp32s3-gw0.log", "esp32s3-gw1.log"]
    for log in logs.iterdir():
        assert "Multicore app" in log.read_text()
        assert "older" not in log.read_text()


@pytest.mark.bench
def test_two_ports_of_one_target_are_both_used(project, tmp_path):
    build = build_app("esp32s3", tmp_path / "build")
    project.write("mine.py", (project.folder / "mine.py").read_text().replace("(3,)", "(3, 6)"))
    project.write("other.py", (project.folder / "mine.py").read_text().replace("mine", "other"))
    with Devkit("esp32s3", mac="7c:df:a1:00:11:01") as a, Devkit("esp32s3") as b:
        run = project.pytest(
            *("--hil-models=mine.py", "--hil-models=other.py", f"--hil-app={build}"),
            *("--target=esp32s3|esp32s3", f"--port={a.url}|{b.url}", "--hil-boards=2"),
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert {row["board"] for row in rows(project)} == {a.url, b.url}


def test_a_busy_bench_has_an_exit_code_of_its_own(project, bench):
    options = bench("esp32s3")
    with job(project, options, "holder", hold_s=60) as holder:
        wait_for(lambda: (project.folder / "order.txt").exists(), 60)
        for workers in ((), ("-n1",)):
            run = project.pytest(*options, *workers, "--hil-wait=0.2")
            assert run.returncode == BOARDS_UNAVAILABLE, run.stdout + run.stderr
            in_use = "ERROR: board-1 is in use by another process of this harness"
            assert f"{in_use} (held by pid {holder.pid}, user " in run.stderr
            assert f"waiting for board-1: held by pid {holder.pid}, user " in run.stderr


@contextlib.contextmanager
def job(project, options, name, *, hold_s=0.0):
    """A pytest of its own."""
    environment = {**os.environ, **project.environment, "JOB": name, "HOLD_S": str(hold_s)}
    command = project.command(*options, f"--hil-report={name}", "-s")
    with (project.folder / f"{name}.log").open("w") as log:
        started = subprocess.Popen(
            command, cwd=project.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def wait_for(condition, timeout_s):
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def order(project):
    return [line.split() for line in (project.folder / "order.txt").read_text().splitlines()]


@pytest.mark.bench
def test_eight_jobs_on_three_boards_finish_in_the_order_in_which_they_came(project, bench):
    """Arrival is at the claim: it takes each pytest a while to get there."""
    options = (*bench("esp32s3", "esp32s3", "esp32s3"), "--hil-wait=600")
    project.pytest("--hil-models=mine.py", "--hil-device=sim")  # quantized before the race
    (project.folder / "order.txt").unlink()
    with contextlib.ExitStack() as stack:
        started_s = time.monotonic()
        jobs = [stack.enter_context(job(project, options, f"job{n}", hold_s=3)) for n in range(8)]
        assert time.monotonic() - started_s < 1
        seen: dict[str, int] = {}

        def done():
            note_arrivals(project, seen)
            return all(process.poll() is not None for process in jobs)

        wait_for(done, 600)
        logs = [(project.folder / f"job{n}.log").read_text() for n in range(8)]
        assert [process.returncode for process in jobs] == [0] * 8, "\n".join(logs)
    finished = [name for name, _ in order(project)]
    arrived = sorted(seen, key=seen.get)
    assert len(finished) == 8
    by_pid = {str(process.pid): f"job{n}" for n, process in enumerate(jobs)}
    came = [by_pid[pid] for pid in arrived]
    for place, name in enumerate(came):  # three run side by side: nobody passes more than two
        assert abs(finished.index(name) - place) <= 2, (came, finished)
    assert len({port for _, port in order(project)}) == 3


def note_arrivals(project, seen):
    """Note the number of each process's claim."""
    folder = project.folder / "locks" / "ports"
    for path in folder.glob("*.claim"):
        with contextlib.suppress(OSError, ValueError):
            seen.setdefault(str(json.loads(path.read_text())["pid"]), int(path.stem))


@pytest.mark.bench
def test_a_killed_run_frees_its_board_at_once(project, bench):
    options = (*bench("esp32s3"), "--hil-wait=60")
    with (
        job(project, options, "victim", hold_s=600) as victim,
        contextlib.ExitStack() as stack,
    ):
        wait_for(lambda: (project.folder / "order.txt").exists(), 120)
        stack.enter_context(job(project, options, "next"))
        log = project.folder / "next.log"
        wait_for(lambda: f"held by pid {victim.pid}" in log.read_text(), 120)
        victim.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        claims = project.folder / "locks" / "ports"

        def is_held():
            with contextlib.suppress(OSError, ValueError):
                return any(
                    json.loads(path.read_text())["holds"]
                    and json.loads(path.read_text())["pid"] != victim.pid
                    for path in claims.glob("*.claim")
                )
            return False

        wait_for(is_held, 10)
        assert time.monotonic() - killed_s < 1.0


@pytest.fixture
def served(project):
    """Serves devkits in processes of their own; returns the options that name their bench."""
    with contextlib.ExitStack() as stack:

        def serve(*targets, pace=False):
            tables = []
            for number, target in enumerate(targets, 1):
                mac = f"7c:df:a1:00:22:{number:02x}"
                command = [sys.executable, "-m", "espdl_hil", "simulate", "--target", target]
                process = stack.enter_context(
                    subprocess.Popen(
                        [*command, "--mac", mac, *(["--pace"] if pace else [])],
                        stdin=subprocess.PIPE,  # it ends when this closes
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                url = process.stdout.readline().strip()
                tables.append(
                    f'[[board]]\nname = "board-{number}"\ntarget = "{target}"\nport = "{url}"\n'
                    f'mac = "{mac}"\nfirmware = "simulated"\nmax_baud = 921600\n'
                )
            project.write("bench.toml", "\n".join(tables))
            return ("--hil-bench=bench.toml",)

        yield serve


def written(project):
    """Bytes that were flashed, and bytes that were uploaded, in the last run."""
    boards = json.loads((project.folder / "hil-report" / "results.json").read_text())["written"]
    return tuple(sum(board[f"{way}_bytes"] for board in boards) for way in ("flashed", "uploaded"))


def artifacts(project):
    """Every file of the store with the time at which it was made, and its size."""
    files = (path for path in project.store.rglob("*.espdl"))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


@pytest.mark.bench
def test_a_second_run_makes_and_writes_nothing(project, served):
    options = (*served("esp32s3"), "--hil-models=mine.py")
    first = project.pytest(*options)
    assert first.returncode == 0, first.stdout + first.stderr
    flashed, uploaded = written(project)
    assert flashed > 0
    assert uploaded == 0
    made = artifacts(project)
    (project.folder / "order.txt").unlink()
    started_s = time.time()
    second = project.pytest(*options, fresh=True)
    assert second.returncode == 0, second.stdout + second.stderr
    assert written(project) == (0, 0)
    assert "0 bytes flashed, 0 bytes of models uploaded" in " ".join(second.stdout.split())
    assert artifacts(project) == made
    verdict_s = (project.folder / "order.txt").stat().st_mtime - started_s
    print(f"first verdict after {verdict_s:.1f} s")
    assert verdict_s < 5


@pytest.mark.bench
def test_a_new_model_on_a_running_bench_writes_its_own_bytes(project, served, tmp_path):
    project.store = tmp_path / "store"  # of these models alone
    options = (*served("esp32s3"), "--hil-models=mine.py")
    assert project.pytest(*options).returncode == 0
    made = artifacts(project)
    text = (project.folder / "mine.py").read_text()
    project.write("other.py", text.replace("mine", "other").replace("Conv1d(4, 4", "Conv1d(4, 6"))
    run = project.pytest(*options, "--hil-models=other.py", "--hil-model-store=auto")
    assert run.returncode == 0, run.stdout + run.stderr
    new = [size for path, (_, size) in artifacts(project).items() if path not in made]
    assert written(project) == (0, sum(new))
    run = project.pytest(*options, "--hil-models=other.py", "--hil-model-store=ram")
    assert run.returncode == 0, run.stdout + run.stderr
    assert written(project) == (0, sum(size for _, size in artifacts(project).values()))


@pytest.mark.bench
def test_four_paced_boards_run_the_zoo_as_one_does_in_a_third_of_its_time(project, served):
    """Most of the time is the line's: 7 MB of models at 921,600 baud."""
    zoo = (f"--hil-models={REPOSITORY / 'models'}", "--hil-model-store=ram")
    took_s, found, boards = {}, {}, {}
    prepared = project.pytest(*zoo, "--hil-device=sim", timeout_s=1800)  # quantized
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    for workers, targets in ((0, ("esp32s3", "esp32p4")), (4, ("esp32s3", "esp32p4") * 2)):
        options = (*served(*targets, pace=True), *zoo, *([f"-n{workers}"] if workers else []))
        started_s = time.monotonic()
        run = project.pytest(*options, timeout_s=1800, fresh=True)
        took_s[workers] = time.monotonic() - started_s
        assert run.returncode == 0, run.stdout + run.stderr
        assert not re.search("in use by another process", run.stdout + run.stderr)
        found[workers] = {row["id"]: row["checks"] for row in rows(project)}
        boards[workers] = {row["board"] for row in rows(project)}
    assert found[4] == found[0]
    assert boards[4] == {f"board-{number}" for number in range(1, 5)}
    share = took_s[4] / took_s[0]
    print(f"one board a target {took_s[0]:.1f} s, two {took_s[4]:.1f} s: {share:.3f}")
    assert share <= 1 / 3
