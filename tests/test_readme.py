"""Every block of the README runs, in the order in which a reader would try them.

Commands run as they are written, with four exceptions: a run is cut short (its options are appended), a
model that would have to be downloaded is replaced by the shipped one, modules are imported already, and
`make` targets are only checked to exist: CI itself runs `make test`.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from actfocus.config import FocusConfig
from tests.zygote import ROOT, zygote

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

SMALL_EVALUATION = ["--evaluation.states", "2", "--evaluation.samples", "1"]
SMALL_ROLLOUT = ["--rollout.prompts", "2", "--rollout.group", "2", "--rollout.response", "24"]
SHORTER = {
    "train": ["--steps", "1", *SMALL_ROLLOUT, *SMALL_EVALUATION],
    "eval": ["--states", "4", "--samples", "1"],
    "warmstart": ["--episodes", "4"],
    "check-env": ["--seeds", "2", "--fuzz", "50"],
}
TINY = str(ROOT / "src" / "actfocus" / "models" / "weights" / "tiny-frozen-lake")
DOWNLOADED = ("smollm2-135m", "Qwen/Qwen2.5-0.5B-Instruct")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the reader stands: a checkout, as far as the commands see it."""
    path = tmp_path_factory.mktemp("reader")
    (path / "recipes").symlink_to(ROOT / "recipes")
    return path


def run(command, folder):
    check(command, subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300))


def check(command, result):
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


def run_line(line, folder):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        run(["make", "--dry-run", "-C", str(ROOT), *words[1:]], folder)
        return
    assert words[0] == ".venv/bin/actfocus", f"the README's commands start in .venv: {line}"
    words = [TINY if word in DOWNLOADED else word for word in words[1:]]
    if words[:2] == ["models", "fetch"]:
        return
    if "--resume" not in words:
        words += SHORTER.get(words[0], [])
    check(words, zygote().start(["actfocus", *words], cwd=folder, text="quit\n").wait())


def check_command(line):
    """A command for another environment: its module is there, and `+actfocus.…` are settings of ours."""
    _, _, module, *settings = shlex.split(line)
    assert (ROOT / "src" / Path(*module.split(".")) / "__main__.py").is_file()
    prefix = "+actfocus."
    ours = dict(word.removeprefix(prefix).split("=") for word in settings if word.startswith(prefix))
    assert ours and FocusConfig.model_validate_strings(ours)


def test_the_readme_has_blocks_of_every_kind():
    assert {kind for kind, _ in BLOCKS} == {"bash", "python", "diff"}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number, folder):
    kind, text = BLOCKS[number]
    if kind == "bash":
        for line in filter(None, text.splitlines()):
            run_line(line, folder)
        return
    if kind == "diff":  # what is added: the import must work, and the call name parameters that there are
        *imports, call = added = [line[1:] for line in text.splitlines() if line.startswith("+")]
        if added[0].startswith("python -m "):
            check_command(" ".join(line.rstrip("\\") for line in added))
            return
        stand_ins = "import inspect\nmodel = reward = args = dataset = None\n"
        checked = re.sub(r"^trainer = (\w+)\(", r"inspect.signature(\1).bind(", call)
        text = "\n".join([stand_ins, *imports, checked])
    named = re.match(r"# (\w+\.py)\n", text)
    path = folder / (named.group(1) if named else "block.py")
    path.write_text(text)
    run([sys.executable, str(path)], folder)
