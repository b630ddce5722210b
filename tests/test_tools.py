"""External programs: believed only after what they leave has been checked; their versions."""

import os
import stat
import subprocess
import sys
import time

import psutil
import pytest
from small_archive import context as small_context

from balrogutils import tools
from balrogutils.errors import ToolError
from balrogutils.graph import Job
from balrogutils.products import read_manifest
from balrogutils.tools import run_tool, version


@pytest.fixture
def fake_tool(tmp_path, monkeypatch):
    """A program called psfex whose behaviour each test writes."""

    def make(body):
        directory = tmp_path / "tools"
        directory.mkdir(exist_ok=True)
        program = directory / "psfex"
        program.write_text("#!/bin/sh\n" + body)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "out file", tmp_path / "logs" / "tool.log"

    return make


def test_a_tool_that_does_its_work(fake_tool):
    out, log = fake_tool('echo hello; printf x > "$1"\n')
    run_tool("psfex", [out], log=log, outputs=[out])
    assert "hello" in log.read_text()


def test_a_log_keeps_no_escapes_and_no_lines_written_over(fake_tool):
    out, log = fake_tool(
        r"""printf '\033[1M> Line: 1\n\033[1A\033[1M> Line: 2\n\033[1A\033[32mdone\033[m\n> kept\n'; printf x > "$1" """
        + "\n"
    )
    run_tool("psfex", [out], log=log, outputs=[out])
    assert log.read_text().splitlines()[1:] == ["done", "> kept"]


def test_a_tool_that_fails_with_output(fake_tool):
    out, log = fake_tool('printf x > "$1"; echo dying words >&2; exit 1\n')
    with pytest.raises(ToolError, match="status 1") as caught:
        run_tool("psfex", [out], log=log, outputs=[out])
    assert "dying words" in str(caught.value)


def test_a_tool_that_succeeds_without_output(fake_tool):
    out, log = fake_tool("exit 0\n")
    out.write_text("an old file")
    with pytest.raises(ToolError, match="did not write"):
        run_tool("psfex", [out], log=log, outputs=[out])


def test_a_tool_that_hangs(fake_tool):
    out, log = fake_tool("sleep 600 & wait\n")
    with pytest.raises(ToolError, match="did not end"):
        run_tool("psfex", [out], log=log, outputs=[out], timeout=0.5)


def test_a_program_that_ended_while_its_job_was_interrupted(fake_tool, monkeypatch):
    """As by Ctrl-C: it was told that the machine refuses, for there is no such process."""
    out, log = fake_tool("exit 0\n")
    wait = subprocess.Popen.wait

    def interrupted(process, timeout=None):
        status = wait(process)
        if timeout is not None:
            raise KeyboardInterrupt
        return status

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_tool("psfex", [out], log=log, outputs=[out])


def test_a_tool_whose_output_is_wrong(fake_tool):
    out, log = fake_tool('printf x > "$1"\n')

    def check():
        raise ToolError("wrong shape")

    with pytest.raises(ToolError, match="wrong shape"):
        run_tool("psfex", [out], log=log, outputs=[out], check=check)


def test_a_missing_tool_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="apt-get install source-extractor"):
        run_tool("sextractor", [], log=tmp_path / "log")


def test_a_killed_job_leaves_no_program_behind(fake_tool, tmp_path):
    _, log = fake_tool(f"echo $$ > '{tmp_path}/pid'; exec sleep 600\n")
    job = subprocess.Popen(
        [sys.executable, "-c", f"from balrogutils.tools import run_tool; run_tool('psfex', [], log={str(log)!r})"]
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.kill()
    job.wait()
    pid = int((tmp_path / "pid").read_text())
    while time.monotonic() < deadline and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def telling(text, status=0):
    """A program that answers whatever it is asked."""
    return f"echo '{text}'; exit {status}\n"


@pytest.fixture
def fresh_versions():
    version.cache_clear()
    yield
    version.cache_clear()


@pytest.mark.usefixtures("fresh_versions")
class TestVersions:
    def test_the_programs_installed_are_new_enough(self):
        for tool in ("sextractor", "swarp", "psfex", "fpack", "funpack"):
            assert version(tool)[0].isdigit()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("PSFEx version 3.20.9 (2012-01-01)", r"version 3\.20\.9, older than 3\.21"),
            ("PSFEx version 2.99 (2012-01-01)", r"older than 3\.21"),
            ("command not understood", "does not tell its version, but: 'command not understood'"),
            ("", "does not tell its version"),
        ],
    )
    def test_another_version_is_refused(self, fake_tool, text, message):
        fake_tool(telling(text))
        with pytest.raises(ToolError, match=message) as caught:
            version("psfex")
        assert "apt-get install psfex" in caught.value.remedy

    @pytest.mark.parametrize("number", ["3.21", "3.21.1", "3.100.0", "4.0.0"])
    def test_the_same_or_a_newer_one_will_do(self, fake_tool, number):
        fake_tool(telling(f"PSFEx version {number} (2030-01-01)"))
        assert version("psfex") == number

    def test_a_program_that_cannot_be_run_is_named(self, fake_tool, tmp_path):
        fake_tool("exit 0\n")
        (tmp_path / "tools" / "psfex").write_text("#!/no/such/interpreter\n")
        with pytest.raises(ToolError, match="cannot be asked"):
            version("psfex")

    def test_a_realization_wants_the_version_of_the_base_run(self, monkeypatch, tmp_path):
        here = small_context(tmp_path)
        monkeypatch.setattr(tools, "version", lambda tool: "2.41.5")
        with Job("coadd", here, "g").open({}) as step:
            pass
        assert read_manifest(step.manifest)["tools"] == {"swarp": "2.41.5"}
        with Job("coadd", here.at("0"), "g").open({}):
            pass
        monkeypatch.setattr(tools, "version", lambda tool: "2.42.0")
        with pytest.raises(
            ToolError, match=r"swarp is version 2\.42\.0, the base run was made with 2\.41\.5"
        ) as caught:
            Job("coadd", here.at("0"), "g").open({})
        assert caught.value.where["band"] == "g"
        # Without a base run, or with one that was adopted, there is nothing to compare with.
        Job("coadd", here.at("0"), "r").open({})
