"""The balrog command."""

import pytest

COMMANDS = ("archive", "prep", "coadd", "detect", "meds", "inject", "sof", "match", "summary")


def test_help_lists_a_subcommand_per_block(command):
    done = command("balrog", "--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself(command, name):
    done = command("balrog", name, "--help")
    assert done.returncode == 0
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prep", "DES0239+0217"], "did you mean 'DES0239+0216'"),
        (["prep", "DES0239+0216", "--band", "u"], "no band u"),
        (["meds", "DES0239+0216", "--set", "sed=1"], "did you mean 'seed'"),
        (["meds", "DES0239+0216", "--set", "seed"], "key=value"),
        (["meds", "DES0239+0216", "--set", "seed=[1"], "cannot be read"),
        (["coadd", "DES0239+0216", "-r", "7"], "realization 7 is not one of 0 1"),
        (["archive", "synthtic"], "synthtic"),
        (["sof", "DES0239+0216", "--workers", "0"], "--workers"),
    ],
)
def test_bad_words_end_with_status_2(command, words, message):
    done = command("balrog", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_and_the_terminal_both_tell(command, tmp_path):
    log = tmp_path / "logs" / "prep.log"
    done = command("balrog", "prep", "DES0239+0217", "--log", str(log))
    assert done.returncode == 2
    assert "did you mean" in log.read_text()
    assert "did you mean" in done.stderr


def test_a_summary_of_nothing(command):
    done = command("balrog", "summary", "DES0239+0216")
    assert done.returncode == 1
    assert "nothing has been made" in done.stderr
