"""Wrong input, promises: one line on stderr that names the key or file, exit code 2, no traceback, no torch.

The whole matrix runs in one fresh process, which tells at its end whether torch was imported; a few cases
then run as a user runs them, one process each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from actfocus.cli.train import check_resume
from actfocus.config import Config, dotted_keys
from actfocus.errors import RunError
from tests.cli.conftest import Result, make_run

FILES = {
    "unknown.toml": "[focus]\nalpah = 0.3\n",
    "section.toml": "[focsu]\nalpha = 0.3\n",
    "root.toml": "alpha = 0.3\n",
    "range.toml": "[focus]\nalpha = 3\n",
    "type.toml": "steps = '5'\n",
    "bool.toml": "steps = true\n",
    "table.toml": "focus = 3\n",
    "betas.toml": "[optimizer]\nbetas = [0.9, 1.5]\n",
    "nan.toml": "[optimizer]\nlr = nan\n",
    "choice.toml": "[algorithm]\nname = 'dpo'\n",
    "broken.toml": "steps = [",
    "frozen.toml": "[env]\nname = 'frozen-lake'\nsuccess_rate = 1.0\n",
    "file": "",
    "odd\x1b[31m.toml": "steps = 'x'\n",
    "own.py": "from actfocus.envs.frozen_lake import FrozenLake\n\n"
    "class Game(FrozenLake):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n",
    "unreadable.py": "class Game(\n",
    "failing.py": "from own import FrozenLake\n\n"
    "class Game(FrozenLake):\n"
    "    def new_level(self, rng):\n"
    "        return 1 / 0\n",
}

# Each: the words after `actfocus`, and what the line must say.
CASES: list[tuple[str, list[str]]] = [
    ("train --focus.alpah 0.3", ["--focus.alpah", "did you mean '--focus.alpha'"]),
    ("train --focus.alpah=0.3", ["--focus.alpah;", "did you mean '--focus.alpha'"]),
    ("train --focus.other_wieght 0.3", ["did you mean '--focus.other-weight'"]),
    ("train --alpha 0.3", ["did you mean '--focus.alpha'"]),
    ("train --lr 1", ["did you mean '--optimizer.lr'"]),
    ("train --stesp 3", ["did you mean '--steps'"]),
    ("train --no-algorithm.whiten", ["did you mean '--algorithm.no-whiten'"]),
    ("train --xyzzy-plugh", ["--xyzzy-plugh", "actfocus train --help"]),
    ("train -x", ["'-x'"]),
    ("train --tyro-print-completion bash", ["unknown option --tyro-print-completion"]),
    ("train bogus", ["unexpected argument 'bogus'"]),
    ("train --focus.alpha 3", ["focus.alpha", "less than or equal to 1, got 3.0"]),
    ("train --focus.alpha -0.1", ["focus.alpha", "greater than or equal to 0, got -0.1"]),
    ("train --focus.alpha nan", ["focus.alpha", "finite"]),
    ("train --focus.beta inf", ["focus.beta", "finite"]),
    ("train --focus.alpha lots", ["--focus.alpha", "a number, got 'lots'"]),
    ("train --env.turns x", ["--env.turns", "a whole number, got 'x'"]),
    ("train --env.turns 0", ["env.turns", "greater than or equal to 1, got 0"]),
    ("train --steps 1.5", ["--steps", "a whole number, got '1.5'"]),
    ("train --steps -1", ["steps", "greater than or equal to 0"]),
    ("train --steps", ["--steps needs a value"]),
    ("train --optimizer.betas 0.9", ["--optimizer.betas needs 2 values"]),
    ("train --optimizer.betas 1 0.9", ["optimizer.betas[0]", "less than 1"]),
    ("train --env chess", ["env.name", "sokoban", "got 'chess'"]),
    ("train --algorithm dpo", ["--algorithm", "'grpo', 'ppo'", "got 'dpo'"]),
    ("train --env.clues 6", ["env", "clues belongs to sudoku"]),
    ("train --env.reward dense", ["env", "reward belongs to webshop"]),
    ("train --env webshop --env.catalogue nosuch", ["no catalogue 'nosuch'", "shipped", "webshop import"]),
    ("train --env webshop --env.goals human", ["shipped", "no human goals"]),
    ("check-env webshop --catalogue ../x", ["'../x'", "lower-case"]),
    ("train --env sudoku --env.turns 2", ["sudoku", "turns", "cannot fill 6 empty cells"]),
    ("train --env sudoku --env.turns 2 --dry-run", ["sudoku", "turns", "cannot fill 6 empty cells"]),
    ("train --env nosuch:Game", ["nosuch:Game"]),
    ("train --env own:NoGame --dry-run", ["own:NoGame"]),
    ("train --env unreadable:Game", ["unreadable:Game", "unreadable.py"]),
    ("train --env own:Game --env.turns 3 --model x.gguf", ["own:Game", "turns"]),
    (
        "train --env own:Game",
        ["tiny ships for frozen-lake, sokoban, sudoku, webshop only: give --model", "warmstart --env own"],
    ),
    ("train --env own:Game --dry-run", ["tiny ships for", "--model"]),
    ("train --rollout.keep 0", ["rollout.keep", "greater than 0"]),
    ("train --config missing.toml", ["missing.toml", "No such file"]),
    ("train --config=missing.toml", ["missing.toml", "No such file"]),
    ("train --config .", ["Is a directory"]),
    ("train --config", ["--config needs a value"]),
    ("train --config unknown.toml", ["unknown.toml: focus.alpah", "did you mean 'focus.alpha'"]),
    ("train --config section.toml", ["section.toml: focsu", "did you mean 'focus'"]),
    ("train --config root.toml", ["root.toml: alpha", "did you mean 'focus.alpha'"]),
    ("train --config range.toml", ["range.toml: focus.alpha", "less than or equal to 1, got 3"]),
    ("train --config range.toml --focus.alpha 0.5", ["range.toml: focus.alpha"]),
    ("train --config type.toml", ["type.toml: steps", "valid integer, got '5'"]),
    ("train --config bool.toml", ["bool.toml: steps", "valid integer, got True"]),
    ("train --config table.toml", ["table.toml: focus", "a table of settings"]),
    ("train --config betas.toml", ["betas.toml: optimizer.betas[1]", "less than 1"]),
    ("train --config nan.toml", ["nan.toml: optimizer.lr", "finite"]),
    ("train --config choice.toml", ["choice.toml: algorithm.name", "'grpo' or 'ppo', got 'dpo'"]),
    ("train --config broken.toml", ["broken.toml is not valid TOML"]),
    ("train --config frozen.toml --env sudoku", ["success_rate belongs to frozen-lake, not to sudoku"]),
    ("train --config odd\x1b[31m.toml", ["valid integer"]),
    ("train --model no-such-model", ["no-such-model"]),
    ("train --model ./no-such-folder", ["no-such-folder"]),
    ("train --model missing.gguf", ["missing.gguf"]),
    ("train --dry-run --model no-such-model", ["no-such-model"]),
    ("train --out run", ["run exists already", "--resume run"]),
    ("train --out file/run", ["file is not a folder"]),
    ("train --resume missing", ["no run directory missing"]),
    ("train --resume .", ["not a run directory", "config.toml"]),
    ("train --resume run --focus.alpha 0.7 --steps 4", ["changed settings: focus.alpha, steps;"]),
    ("train --resume run --config frozen.toml", ["changed settings: env.success_rate"]),
    ("train --resume run --out other", ["--out does not go with --resume"]),
    ("eval", ["RUN is missing"]),
    ("eval missing", ["no run directory missing"]),
    ("eval empty", ["empty has no checkpoint yet"]),
    ("eval run --step 7", ["no checkpoint of step 7", "it has 5, 10"]),
    ("eval run --states 0", ["states", "greater than or equal to 1"]),
    ("eval run --temperature -1", ["temperature", "greater than or equal to 0"]),
    ("eval run --sampels 3", ["did you mean '--samples'"]),
    ("eval run run", ["unexpected argument 'run'"]),
    ("warmstart --episodes 0", ["episodes", "greater than or equal to 1"]),
    ("warmstart --evaluation-states -1", ["evaluation_states", "greater than or equal to 0"]),
    ("warmstart --evaluation-states 1000001", ["evaluation_states", "less than or equal to 1000000"]),
    ("warmstart --random-share 2", ["random_share", "less than or equal to 1"]),
    ("warmstart --model no-such-model", ["no-such-model"]),
    ("warmstart --env sudoku --env.turns 2", ["sudoku", "turns", "cannot fill 6 empty cells"]),
    ("warmstart --env nosuch:Game", ["nosuch:Game"]),
    ("warmstart --out run", ["run exists already"]),
    ("play", ["ENV is missing"]),
    ("play chess", ["sudoku", "got 'chess'"]),
    ("play sudoku --clues 99", ["clues", "less than or equal to 15, got 99"]),
    ("play sudoku --success-rate 1", ["success_rate belongs to frozen-lake"]),
    ("play sudoku --seed -1", ["seed", "got -1"]),
    ("play sudoku --turns 2", ["sudoku", "turns", "cannot fill 6 empty cells"]),
    ("play own:Game --turns 3", ["own:Game", "turns"]),
    ("play failing:Game", ["failing:Game: new_level raised ZeroDivisionError", "failing.py:5: return 1 / 0"]),
    ("play unreadable:Game", ["unreadable:Game", "unreadable.py"]),
    ("check-env", ["ENV is missing"]),
    ("check-env sokobn", ["did you mean 'sokoban'", "got 'sokobn'"]),
    ("check-env sokoban --seeds 0", ["seeds", "got 0"]),
    ("check-env nosuch:Game", ["nosuch:Game"]),
    ("models fetch", ["actfocus models fetch NAME"]),
    ("models fetch smollm3", ["smollm2-135m"]),
    ("models lsit", ["'list', 'fetch'", "got 'lsit'"]),
    ("models list tiny", ["unexpected argument 'tiny'"]),
    ("completion fish", ["'bash', 'zsh'", "got 'fish'"]),
    ("trian", ["unknown command", "did you mean 'train'"]),
    ("--steps 3", ["option before the command"]),
]

AS_A_USER = ["train --focus.alpah 0.3", "train --focus.alpha 3", "train --out run", "train bogus"]

_ALL_IN_ONE = """
import contextlib, io, json, sys, time
from actfocus.cli import main

results = []
for args in json.load(sys.stdin):
    out, err, begin = io.StringIO(), io.StringIO(), time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(args)
    seconds = time.perf_counter() - begin
    results.append({"code": code, "out": out.getvalue(), "err": err.getvalue(), "seconds": seconds})
print(json.dumps({"results": results, "torch": "torch" in sys.modules}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    make_run(folder / "run", steps=(5, 10))
    make_run(folder / "empty")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    words = [case.split(" ") for case, _ in CASES]
    done = subprocess.run(
        [sys.executable, "-c", _ALL_IN_ONE],
        input=json.dumps(words),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[case for case, _ in CASES])
def test_is_refused_in_one_line(report: dict[str, Any], number: int) -> None:
    result, (_, said) = report["results"][number], CASES[number]
    assert result["code"] == 2
    assert result["out"] == ""
    assert result["err"].startswith("actfocus: ")
    assert result["err"].endswith("\n")
    assert result["err"].count("\n") == 1
    assert result["err"][:-1].isprintable()
    for words in said:
        assert words in result["err"]
    # The limit is three seconds with the start of Python; torch alone would break it.
    assert result["seconds"] < 2


def test_imports_no_torch(report: dict[str, Any]) -> None:
    assert not report["torch"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("case", AS_A_USER)
def test_from_the_shell(folder: Path, case: str, encoding: str) -> None:
    command = [sys.executable, "-m", "actfocus", *case.split()]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder, env=env)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "---" not in done.stderr, "a piece of tyro's box"


def test_nothing_was_made(report: dict[str, Any], folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*FILES, "run", "empty"}


def test_check_resume_names_every_changed_key(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    check_resume(run, Config())
    changed = Config.model_validate({"seed": 3, "focus": {"other_weight": 1.0}})
    with pytest.raises(RunError, match=r"focus\.other_weight, seed;"):
        check_resume(run, changed)


FLAGS = ["--" + key.replace("_", "-") for key in dotted_keys(Config)] + [
    "--config",
    "--resume",
    "--json",
    "--",
]
ODD = [
    "",
    "-",
    "=",
    "-1",
    "nan",
    "1e400",
    "9" * 30,
    "x" * 200,
    "a 'b",
    "{None}",
    "\n",
    "│ x │",
    "╭─",
    "🙂",
    "\udcff",
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(FLAGS) | st.sampled_from(ODD) | st.text(max_size=8), max_size=5))
def test_no_words_make_it_crash(actfocus: Callable[..., Result], words: list[str]) -> None:
    assume("-h" not in words and "--help" not in words)
    result = actfocus("train", *words, "--no-such-option")
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
