"""Lists of tiles, and campaigns: one tile that cannot be made stops no other."""

import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from small_campaign import SmallCampaign, make_alone

from balrogutils.cli.campaign import _Batches, _error, _report, read_tiles
from balrogutils.context import Installation
from balrogutils.errors import InputError

TILES = ("DES0239+0216", "DES0240+0216")


@pytest.fixture
def installation(base, tmp_path):
    return Installation.load({}, {"BALROG_BASE": str(base), "MEDS_DATA": str(tmp_path / "meds")})


@pytest.fixture
def listed(tmp_path):
    """Write a list of tiles."""

    def write(text):
        path = tmp_path / "tiles.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


class TestLists:
    def test_names_alone_count(self, installation, listed):
        path = listed(f"\ufeff{TILES[1]}   # first\n\n# the north\n  {TILES[0]}\r\n")
        assert [one.tile for one in read_tiles(path, installation)] == [TILES[1], TILES[0]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "names no tile"),
            ("# nothing\n\n", "names no tile"),
            (b"\xff\xfe\x00", "it is no text"),
            (f"{TILES[0]}\nDES0000\n", r"no campaign lists this tile.*tiles.txt, line 2"),
            (f"{TILES[0]} {TILES[1]}\n", r"no campaign lists this tile.*tiles.txt, line 1"),
            (f"{TILES[0]}\n\n{TILES[0]}\n", "named again in line 3"),
            ("../../etc\n", "no campaign lists this tile"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_line(self, installation, listed, text, message):
        with pytest.raises(InputError, match=message):
            read_tiles(listed(text), installation)

    def test_a_list_that_is_not_there(self, installation, tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_tiles(tmp_path / "nowhere.txt", installation)


@pytest.mark.parametrize(
    "words",
    [("--config", "mode=1"), ("--config=mode=1",), ("-Cmode=1",), ("--configfile", "x.yaml"), ("tile=DES0239+0216",)],
)
def test_settings_and_tiles_have_one_place(command, listed, words):
    done = command("balrog", "campaign", str(listed(TILES[0])), "--", *words)
    assert done.returncode == 2
    assert "is not for a campaign" in done.stderr
    assert "--set KEY=VALUE" in done.stderr


def test_options_that_snakemake_does_not_know_end_it_at_once(command, listed):
    """And are not tried on every tile."""
    done = command("balrog", "campaign", str(listed("\n".join(TILES))), "--set", "mode=1", "--", "--coresss", "2")
    assert done.returncode == 2
    assert "Snakemake does not take these options: unrecognized arguments: --coresss 2" in done.stderr
    assert "remedy: correct what follows the --" in done.stderr
    assert done.stderr.count("usage: ") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_a_run_is_started_reaches_it(monkeypatch, number):
    """It would go on for hours otherwise. A terminal's interrupt reaches it by itself, and may do so only once."""
    popen, batches, started = subprocess.Popen, _Batches(()), []

    def start(command, **words):
        signal.raise_signal(number)
        started.append(popen(["sleep", "60"], **words))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    began = time.monotonic()
    with batches.ending():
        batches.run(TILES)
    assert batches.ended == number
    assert [run.returncode for run in started] == [-signal.SIGTERM]
    assert time.monotonic() - began < 30


def test_failing_tiles_are_told_and_stop_no_other(command, listed):
    """The archives are empty databases: block 1 of every tile fails, in batches of one."""
    path = listed("\n".join(TILES))
    done = command("balrog", "campaign", str(path), "--batch", "1", "--set", "mode=1", "--set", "bands=g", "--", "-c2")
    assert done.returncode == 1, done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("balrog: tiles")] == [
        "balrog: tiles 1 to 1 of 2",
        "balrog: tiles 2 to 2 of 2",
    ]
    said = done.stdout.splitlines()[-1]
    reason = r"prep g: [^;]*"
    assert re.fullmatch(
        rf"campaign of 2 tiles: 0 done, 2 failed \({TILES[0].replace('+', '.')}: {reason}; "
        rf"{TILES[1].replace('+', '.')}: {reason}\), 0 left",
        said,
    )


def test_a_tile_of_another_run_is_left_out(command, listed, base, terminal):
    """Snakemake refuses the whole batch for it; the others are made by themselves."""
    holder = subprocess.Popen(
        ["python", "-c", HOLD, TILES[0]], **terminal, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        path = listed("\n".join(TILES))
        done = command("balrog", "campaign", str(path), "--set", "mode=1", "--set", "bands=g", "--", "-c2")
    finally:
        holder.communicate("")
    assert done.returncode == 1
    said = done.stdout.splitlines()[-1]
    assert f"{TILES[0]}: another run has this tile" in said
    assert f"{TILES[1]}: prep g: " in said


HOLD = """
import sys
from balrogutils.context import Installation
lock = Installation.load().context(sys.argv[1]).lock
lock.hold()
print("held", flush=True)
sys.stdin.read()
"""


class TestWhy:
    """A run of Snakemake that does not end well is told with what it said last."""

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            ([], "it said nothing"),
            (["host: a", "the last line"], "the last line"),
            (
                ["Building DAG of jobs...", "MissingInputException in rule coadd:", "Missing input files:", "x.fits"],
                "MissingInputException in rule coadd: Missing input files: x.fits",
            ),
            (
                ["Traceback (most recent call last):", 'File "x.py", line 1', "OSError: [Errno 28] No space left"],
                "OSError: [Errno 28] No space left",
            ),
            (["WorkflowError:", *"abcdefg"], "WorkflowError: a b c"),
            (["Error: one", "ValueError: another", "the end"], "ValueError: another the end"),
        ],
    )
    def test_the_last_error_counts(self, lines, said):
        assert _error(lines) == said

    @staticmethod
    def speaking(monkeypatch, script):
        """Put a shell script in the place of Snakemake; return the tiles of its calls, as they come."""
        popen, calls = subprocess.Popen, []

        def start(command, **words):
            tiles = [word.removeprefix("tile=") for word in command if word.startswith("tile=")]
            calls.append(tiles)
            return popen(["sh", "-c", script, "sh", *tiles], **words)

        monkeypatch.setattr(subprocess, "Popen", start)
        return calls

    def test_a_run_that_comes_to_no_job_is_tried_tile_by_tile(self, monkeypatch):
        """One tile that Snakemake cannot make keeps no other of its batch from being made."""
        script = 'case "$*" in *0239*) echo "MissingInputException: x" >&2; exit 1;; *) echo "rule prep:" >&2;; esac'
        calls = self.speaking(monkeypatch, script)
        batches = _Batches(())
        batches.run(TILES)
        assert calls == [list(TILES), [], [TILES[0]], [TILES[1]]]
        assert batches.refused == {TILES[0]: "Snakemake ended with status 1: MissingInputException: x"}
        assert batches.stopped == {}

    def test_what_no_tile_can_mend_is_not_tried_on_each(self, monkeypatch):
        calls = self.speaking(monkeypatch, "echo 'Error: profile given but no config.yaml found' >&2; exit 1")
        batches = _Batches(())
        batches.run(TILES)
        why = "Snakemake ended with status 1: Error: profile given but no config.yaml found"
        assert calls == [list(TILES), []]
        assert batches.hopeless == why
        assert batches.stopped == dict.fromkeys(TILES, why)
        assert batches.refused == {}

    @pytest.mark.parametrize(
        ("end", "why"),
        [
            ("echo 'OSError: disk' >&2; exit 1", "Snakemake ended with status 1: OSError: disk"),
            ("kill -9 $$", "Snakemake was ended by signal 9: rule prep:"),
        ],
    )
    def test_a_run_that_ends_midway_is_not_begun_again(self, monkeypatch, end, why):
        calls = self.speaking(monkeypatch, f"echo '    rule prep:' >&2; echo 'rule prep:' >&2; {end}")
        batches = _Batches(())
        batches.run(TILES)
        assert len(calls) == 1
        assert batches.stopped == dict.fromkeys(TILES, why)

    def test_what_is_left_is_told_with_the_reason_once(self, installation):
        contexts = [installation.context(tile) for tile in TILES]
        batches = _Batches((), stopped=dict.fromkeys(TILES, "Snakemake ended with status 1: OSError: disk"))
        text, whole = _report(contexts, batches)
        assert text == ("campaign of 2 tiles: 0 done, 0 failed, 2 left (Snakemake ended with status 1: OSError: disk)")
        assert not whole


def test_a_snakefile_that_cannot_be_read_is_the_reason(command, listed, terminal):
    """Before any job: it was tried on every tile, each of which failed for it."""
    (terminal["cwd"] / "Snakefile").unlink()
    (terminal["cwd"] / "Snakefile").write_text("raise OSError('no room')\n")
    done = command("balrog", "campaign", str(listed("\n".join(TILES))), "--batch", "1", "--set", "mode=1", "--", "-c1")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("balrog: ")] == ["balrog: tiles 1 to 1 of 2"]
    said = done.stdout.splitlines()[-1]
    why = r"Snakemake ended with status 1: OSError in file .*, line 1: no room"
    assert re.fullmatch(rf"campaign of 2 tiles: 0 done, 0 failed, 2 left \({why}.*\)", said), said


@pytest.mark.long
class TestCampaign:
    """Four tiles in a row: one that the archive does not have, one with a damaged image."""

    WORDS = ("--set", "mode=3", "--set", "realizations=none", "--", "--cores", "2")

    def test_an_interrupt_on_a_terminal(self, base, terminal, listed):
        """Ctrl-C reaches the campaign, Snakemake and its jobs: all end at once, and nothing counts as failed."""
        path = listed(make_alone(base))
        words = ("balrog", "campaign", str(path), *self.WORDS)
        ours, theirs = os.openpty()
        alone, told = ["setsid", "--ctty", "--wait", *words], []
        pipes = {"stdin": theirs, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(alone, **terminal, **pipes, text=True) as run:
            for line in run.stderr:
                told.append(line)
                if re.match(r"(?:local)?rule coadd:", line):
                    os.write(ours, b"\x03")
            said = run.stdout.read()
        os.close(ours)
        os.close(theirs)
        assert run.returncode == 128 + signal.SIGINT
        # Snakemake's own words are others when its jobs, which heard it too, have ended before it could.
        assert told.count("balrogutils: interrupted; the same command makes what is left\n") == 1
        # As Snakemake ended when it was interrupted twice.
        assert not re.search("event loop|RuntimeError", "".join(told))
        assert said == "campaign of 1 tile: 0 done, 0 failed, 1 left (ended by SIGINT)\n"
        done = subprocess.run(words, **terminal, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "campaign of 1 tile: 1 done, 0 failed, 0 left\n"

    def test_it_goes_on_where_it_was_interrupted(self, base, command, terminal, listed):
        campaign = SmallCampaign(base, 4, workers=2)
        path = listed("\n".join(campaign.tiles))
        words = ("balrog", "campaign", str(path), "--batch", "2", *self.WORDS)
        run = subprocess.Popen(words, **terminal, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for line in run.stderr:
            if re.match(r"(?:local)?rule coadd:", line.strip()):
                run.send_signal(signal.SIGTERM)
                break
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 128 + signal.SIGTERM
        assert re.match(r"campaign of 4 tiles: 0 done, ", said.splitlines()[-1])

        done = command(*words)
        assert done.returncode == 1
        campaign.require_report(done.stdout.splitlines()[-1])
        root = base / "run" / "meds" / "y3v02"
        fetched = [path for path in (root / "shared").rglob("*") if path.is_file()]
        # CCDs of both tiles that are done.
        assert any(path.stat().st_nlink >= 3 for path in fetched)
        assert all(path.stat().st_nlink >= 2 for path in fetched)
        whole = command("balrog", "verify", "--deep", *campaign.tiles[1:3])
        assert whole.returncode == 0, whole.stdout

        shutil.rmtree(terminal["cwd"] / ".snakemake")
        path.write_text("\n".join(campaign.tiles[1:3]))
        done = command(*words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "campaign of 2 tiles: 2 done, 0 failed, 0 left"
        assert "Nothing to be done" in done.stderr + done.stdout
