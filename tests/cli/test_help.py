"""Help and shell completion, promises: a newcomer finds every command and setting, by reading and by Tab."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actfocus.cli.app import COMMANDS
from actfocus.config import Config, WarmstartConfig, dotted_keys
from tests.cli.conftest import Result

Call = Callable[..., Result]


def flags(kind: type[Config] | type[WarmstartConfig]) -> list[str]:
    keys = dotted_keys(kind)
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    return ["--" + key.replace("_", "-") for key in leaves]


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_names_every_command(actfocus: Call, args: tuple[str, ...]) -> None:
    result = actfocus(*args)
    assert (result.code, result.err) == (0, "")
    for name in COMMANDS:
        assert f"• {name} " in result.out
    (recipe,) = re.findall(r"actfocus train --config (\S+)", result.out)
    assert (Path(__file__).parents[2] / recipe).is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(actfocus: Call, name: str) -> None:
    result = actfocus(name, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"usage: actfocus {name}" in result.out
    assert f"    actfocus {name}" in result.out or f"$(actfocus {name}" in result.out
    assert "--json" in result.out
    assert "{None}" not in result.out
    assert "noqa" not in result.out, "a comment of the code is no help"


@pytest.mark.parametrize(("name", "kind"), [("train", Config), ("warmstart", WarmstartConfig)])
def test_every_setting_is_a_flag(actfocus: Call, name: str, kind: type[Config]) -> None:
    # Where an option is described, its name begins the line; the examples above name some of them too.
    # The frame is there only if stdout is UTF-8.
    rows = re.findall(r"^[│ ] (--.*)", actfocus(name, "--help").out, re.MULTILINE)
    shown = {flag for row in rows for flag in re.findall(r"--[\w.-]+", row)}
    assert shown >= {"--env", "--model", *flags(kind)}


@pytest.fixture
def script(actfocus: Call, tmp_path: Path) -> Path:
    path = tmp_path / "completion.bash"
    path.write_text(actfocus("completion", "bash").out, encoding="utf-8")
    return path


bash = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


@bash
def test_bash_accepts_the_script(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)
    text = script.read_text(encoding="utf-8")
    for flag in ["--focus.alpha", "--algorithm", "--random-share", "--samples", *flags(Config)]:
        assert flag in text, flag


@bash
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("tr", ["train"]),
        ("train --focus.a", ["--focus.alpha"]),
        ("train --algorithm pp", ["ppo"]),
        ("eval --s", ["--states", "--samples", "--step"]),
    ],
)
def test_tab_completes(script: Path, words: str, offered: list[str]) -> None:
    press_tab = f"""
        source {script}
        COMP_WORDS=(actfocus {words}) COMP_CWORD={len(words.split())}
        $(complete -p actfocus | sed 's/.*-F \\([^ ]*\\).*/\\1/') 2>/dev/null
        _tyro_actfocus
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", press_tab], capture_output=True, text=True, timeout=60)
    assert sorted(done.stdout.split()) == sorted(offered), done.stderr


def test_zsh(actfocus: Call, tmp_path: Path) -> None:
    text = json.loads(actfocus("completion", "zsh", "--json").out)["script"]
    assert text.startswith("#compdef actfocus")
    assert "--focus.alpha" in text
    if zsh := shutil.which("zsh"):
        (tmp_path / "_actfocus").write_text(text, encoding="utf-8")
        subprocess.run([zsh, "-n", str(tmp_path / "_actfocus")], check=True, timeout=60)


@pytest.mark.parametrize("args", ["", "train --help"])
def test_help_on_a_terminal_that_knows_only_ascii(args: str) -> None:
    command = [sys.executable, "-m", "actfocus", *args.split()]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() and done.stdout.startswith("usage: actfocus")
