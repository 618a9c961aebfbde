import io
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from dynjax import sweep
from dynjax.sweep._progress import JsonMeter, LineMeter, make_meter


def test_handlers_set_a_flag_and_are_put_back():
    old = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with sweep.stop_on_signals() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert stop.reason == "SIGTERM"
        signal.raise_signal(signal.SIGINT)
        assert stop.reason == "SIGTERM"
    assert old == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert signal.set_wakeup_fd(-1) == -1


def test_importing_installs_no_handler():
    code = "import signal; a = signal.getsignal(2), signal.getsignal(15); import dynjax.sweep, sys; "
    code += "assert a == (signal.getsignal(2), signal.getsignal(15)); "
    code += "assert not {'zarr', 'xarray', 'tqdm', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_second_interrupt_ends_a_process_that_does_not_return_to_python():
    """The main thread waits in a lock that no handler can interrupt, as in compiled code."""
    code = (
        "import ctypes, sys; from dynjax.sweep import stop_on_signals\n"
        "with stop_on_signals(on_abort=lambda: print('aborting', flush=True)) as stop:\n"
        "    print('ready', flush=True)\n"
        "    import threading\n"
        "    threading.Thread(target=lambda: (stop.wait(30), print('first', flush=True)), daemon=True).start()\n"
        "    while True: ctypes.CDLL(None).sleep(30)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "first\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
            assert process.stdout.readline() == "aborting\n"
        finally:
            process.kill()


def test_only_the_main_thread_may_install_handlers():
    caught = []

    def use():
        try:
            with sweep.stop_on_signals():
                pass
        except ValueError as error:
            caught.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "main thread" in caught[0]


def test_worker_identity_is_read_from_the_environment(monkeypatch):
    monkeypatch.delenv("DYNJAX_WORKER", raising=False)
    assert sweep.worker_identity() is None
    monkeypatch.setenv("DYNJAX_WORKER", "1/4")
    assert sweep.worker_identity() == (1, 4)
    assert isinstance(make_meter(True), JsonMeter)


PLAN = {"event": "plan", "num_blocks": 2, "num_segments": 2, "num_lanes": 4, "done": [1, 0]}


def segment(block, number, dead=0, loss=0.5):
    return {
        "event": "segment",
        "block": block,
        "segment": number,
        "dead": dead,
        "alive": 2 - dead,
        "summary": {"loss": loss},
    }


def test_lines_count_segments_and_living_lanes_over_processes():
    stream = io.StringIO()
    meter = LineMeter(stream, interval=0.0)
    for event in (PLAN, segment(1, 1), PLAN, segment(0, 2, dead=1), {"event": "note", "text": "a note"}, segment(1, 2)):
        meter(event)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("1/4 segments, 4/4 lanes alive")
    assert lines[3].startswith("3/4 segments, 3/4 lanes alive, loss 0.5, about ")
    assert lines[4] == "a note"
    assert lines[5] == "4/4 segments, 3/4 lanes alive, loss 0.5"


def test_json_lines_come_back_as_they_were():
    stream = io.StringIO()
    meter = JsonMeter(stream)
    events = [PLAN, segment(1, 1, loss=None)]
    for event in events:
        meter(event)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == events


def test_a_bar_is_shown_on_a_terminal():
    termios = pytest.importorskip("termios")
    code = (
        "from dynjax.sweep._progress import make_meter\n"
        f"meter = make_meter(True)\nfor event in {[PLAN, segment(1, 1, dead=1)]!r}: meter(event)\nmeter.close()\n"
    )
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    environment = {name: value for name, value in os.environ.items() if name != "DYNJAX_WORKER"}
    subprocess.run([sys.executable, "-c", code], stderr=slave, check=True, timeout=60, env=environment)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "2/4" in shown
    assert "3/4 lanes alive" in shown
