"""Nothing depends on what is printed: whatever becomes of the streams, the work is done and the files are whole."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dissect
from dissect import Run
from dissect.base.progress import hidden, say
from dissect.base.streams import DISABLE, lasting, quiet, shows_bars
from dissect.cli import main as cli
from dissect.cli.main import main
from tests.support.runs import small_run

SMALL = "--forget a.txt --retain b.txt --tokens 60 --context 16 --fraction 0.1 --steps 2 --dtype float32"
PRUNE = f"$DISSECT prune --model ./модель {SMALL} --out прогон"
COMPARE = f"$DISSECT compare --models ./модель {SMALL} --sites mlp --out прогон"
STABILITY = (
    f"$DISSECT stability --model ./модель {SMALL.replace('--steps 2 ', '')} --sites mlp --importances abs --out прогон"
)

STAND_IN = Path(__file__).parents[1] / "support" / "stand_in.py"
WAYS = {
    "a reader that goes away": "{command} 2>/dev/full | head -1",
    "nobody reads": "{command} 2>&1 | true",
    "all closed": "{command} <&- >&- 2>&-",
    "a narrow encoding": "PYTHONIOENCODING=ascii:strict {command}",
}


@pytest.fixture(scope="module")
def folder(folder_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("место")
    (folder / "модель").symlink_to(folder_of("llama"))
    for name, word in (("a", "river"), ("b", "town")):
        text = "\n\n".join(f"the {word} {number} rose above the fields" for number in range(200))
        (folder / f"{name}.txt").write_text(text)
    return folder


def shell(command, folder):
    command = ["bash", "-c", f"set -o pipefail; {command}"]
    environment = {"DISSECT": f"{sys.executable} -m dissect"} | os.environ
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture
def started(server, monkeypatch):
    """`$DISSECT` has the streams that a shell gives it, and the imports of a process that has done them."""
    with tempfile.TemporaryDirectory() as folder:  # the path of a socket is short
        at = f"{folder}/socket"
        monkeypatch.setenv("DISSECT", f"{sys.executable} -S {STAND_IN} {at}")
        pid = server.start("as_process", listen_at=at)
        yield
        code, output = server.wait(pid)
        assert (code, output) == (0, "")


def fresh(folder, tmp_path):
    for name in ("модель", "a.txt", "b.txt"):
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_finished_whatever_becomes_of_the_streams(folder, tmp_path, way, request):
    """Without any streams as a process of its own, from its start to its end."""
    if way != "all closed":
        request.getfixturevalue("started")
    here = fresh(folder, tmp_path)
    done = shell(WAYS[way].format(command=PRUNE), here)
    assert (done.returncode, done.stderr) == (0, "")
    assert Run.load(here / "прогон").finished
    if way == "a reader that goes away":
        assert len(done.stdout.splitlines()) == 1
    if "narrow" in way:
        assert r"run: \u043f\u0440" in done.stdout
        assert "100%" not in done.stdout  # a bar, as a terminal has it


@pytest.mark.parametrize(("command", "way"), [(COMPARE, "nobody reads"), (STABILITY, "a narrow encoding")])
def test_files_are_written_before_anything_is_printed(started, folder, tmp_path, way, command):
    here = fresh(folder, tmp_path)
    done = shell(WAYS[way].format(command=command), here)
    assert (done.returncode, done.stderr) == (0, "")
    written = {path.name for path in (here / "прогон").iterdir() if path.is_file()}
    assert {"figure_1.html", "figure_3.html", "summary.csv"} <= written or {
        "stability.csv",
        "stability.html",
    } <= written


@pytest.mark.parametrize("command", ["--help", "cost fig1"])
def test_a_command_that_only_prints_stops_quietly(started, folder, command):
    done = shell(WAYS["a reader that goes away"].format(command=f"$DISSECT {command}"), folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_could_not_be_printed_for_want_of_room_is_said(folder):
    done = shell("$DISSECT cost fig1 >/dev/full", folder)
    assert done.returncode == 1
    assert done.stderr == (
        "dissect: error: what was to be printed is lost (No space left on device); files are written all the same\n"
    )


@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&1 | true"])
def test_an_error_keeps_its_status_where_nobody_reads_it(started, folder, stream):
    assert shell(f"$DISSECT prune --model ./nowhere {SMALL} {stream}", folder).returncode == 2


def test_a_file_never_becomes_standard_output(tmp_path):
    """With descriptor 1 closed, the next file that is opened would have its number."""
    program = (
        "from dissect.base.streams import lasting\nwith lasting(): print(open('x', 'w').fileno(), file=open('y', 'w'))"
    )
    assert shell(f'{sys.executable} -c "{program}" >&-', tmp_path).returncode == 0
    assert int((tmp_path / "y").read_text()) > 2


def test_bars_are_for_terminals_and_notebooks(started, folder, tmp_path):
    command = ["bash", "-c", f"stty cols 100 rows 40; {PRUNE}"]
    terminal = f"import pty, sys; sys.exit(pty.spawn({command}) >> 8)"
    here = fresh(folder, tmp_path)
    shown = subprocess.run([sys.executable, "-c", terminal], cwd=here, capture_output=True, text=True)
    assert "run: 100%" in shown.stdout
    stream = type("OutStream", (), {"isatty": lambda self: False, "__module__": "ipykernel.iostream"})()
    assert shows_bars(stream)
    closed = io.StringIO()
    closed.close()
    assert not any(shows_bars(stream) for stream in (None, closed, io.StringIO(), object()))
    assert hidden()  # under pytest, which captures


@pytest.mark.parametrize(("rank", "shown"), [(None, True), ("0", True), ("1", False)])
def test_of_many_ranks_the_main_one_has_bars(monkeypatch, rank, shown):
    monkeypatch.setattr(sys, "stderr", type("Terminal", (io.StringIO,), {"isatty": lambda self: True})())
    for name, value in (("TORCHELASTIC_RUN_ID", rank and "job"), ("RANK", rank)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert cli._has_bars() == shown


def test_other_libraries_are_quiet_for_as_long_as_the_command_runs(monkeypatch):
    monkeypatch.delenv(DISABLE, raising=False)
    with quiet():
        assert os.environ[DISABLE] == "1"
    assert DISABLE not in os.environ
    monkeypatch.setenv(DISABLE, "0")
    with quiet():
        assert os.environ[DISABLE] == "0"
    assert os.environ[DISABLE] == "0"


# In Python


class Broken(io.StringIO):
    """A standard output that nobody reads."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "broken": Broken,
    "closed": closed,
    "none": lambda: None,
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_prune_in_python_with_any_standard_output(tmp_path, monkeypatch, stream):
    plain = small_run(tmp_path / "plain", steps=2)
    monkeypatch.setattr(sys, "stdout", STREAMS[stream]())
    monkeypatch.setattr(sys, "stderr", STREAMS[stream]())
    run = small_run(tmp_path / "run", steps=2, progress=True)
    assert run.finished
    assert [line.metrics for line in run.history] == [line.metrics for line in plain.history]


def test_what_a_narrow_stream_has_no_code_for_is_spelled_out(monkeypatch):
    stream = STREAMS["ascii"]()
    monkeypatch.setattr(sys, "stdout", stream)
    say("größer")
    assert stream.buffer.getvalue() == rb"gr\xf6\xdfer" + b"\n"


def test_streams_that_are_no_files_are_left_alone(monkeypatch, capsys):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    mine = sys.stdout, sys.stderr
    with lasting() as lost:
        assert (sys.stdout, sys.stderr) == mine
    assert (sys.stdout, sys.stderr) == mine
    assert not lost
    assert main(["cost", "fig1"]) == 0
    assert "opt-125m" in sys.stdout.getvalue()


def test_no_bar_and_no_line_goes_past_them():
    """Every bar asks `hidden`, every line is said by `say`; the command line alone prints."""
    for path in Path(dissect.__path__[0]).rglob("*.py"):
        text = path.read_text()
        assert len(re.findall(r"\btqdm\(", text)) == text.count("disable=hidden("), path
        assert path.name == "progress.py" or "tqdm.write" not in text, path
        assert path.parent.name == "cli" or not re.search(r"\bprint\(", text), path
