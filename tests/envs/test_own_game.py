"""Games of the user's own, promises: what they raise is one `GameError` that names the game, the method and
the place in the user's code; what is not the game's fault passes, and so does what our own games raise.
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from actfocus.envs import TextEnv, make_env
from actfocus.errors import ConfigError, GameError

HELPER = "def level(rng):\n    return {}[rng.integers(1)]\n"
GAME = """\
from actfocus.envs import TextEnv
from the_helper import level

class Game(TextEnv):
    rules = "Say a number."

    def __init__(self, *, turns=2):
        super().__init__(turns=turns, actions_per_turn=2, actions_per_episode=4)

    def new_level(self, rng):
        self.number = 1

    def picture(self):
        return "A door."

    @staticmethod
    def read_action(text):
        return int(text)

    def play(self, action):
        return float(action == self.number), False

class Helped(Game):
    def new_level(self, rng):
        level(rng)

class Forgets(Game):
    def play(self, action):
        self.success = True

class Unpaintable(Game):
    def picture(self):
        raise StopIteration

class Empty(TextEnv):
    def __init__(self):
        super().__init__(turns=1, actions_per_turn=1, actions_per_episode=1)

class PaysNothing(Game):
    def play(self, action):
        return float("nan"), False

class Scores(Game):
    def figures(self):
        return {"score": float("inf") if self.turn == 1 else "many"}

class TakesAName(Game):
    def figures(self):
        return {"evaluation": 1.0}

class NeedsAFile(Game):
    def __init__(self):
        open("words.txt")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "the_game.py").write_text(GAME)
    (tmp_path / "the_helper.py").write_text(HELPER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in ("the_game", "the_helper"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return tmp_path


def reply(action: str) -> str:
    return f"<think></think><answer>{action}</answer>"


def test_a_good_game_is_as_it_was() -> None:
    env = make_env("the_game:Game", turns=3)
    assert (type(env).__name__, type(env).__module__, env.turns) == ("Game", "the_game", 3)
    assert env.system_prompt.startswith("Say a number.")
    env.reset(seed=1)
    assert env.step(reply("1 || 2"))[1] == 1.0
    assert type(env) is type(make_env("the_game:Game"))


def test_a_method_that_raises(folder: Path) -> None:
    env = make_env("the_game:Game")
    env.reset(seed=1)
    with pytest.raises(GameError) as caught:
        env.step(reply("one"))
    where = f"{folder}/the_game.py:18: return int(text)"
    said = "ValueError: invalid literal for int() with base 10: 'one'"
    assert str(caught.value) == f"the game the_game:Game: read_action raised {said} ({where})"
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_place_is_the_deepest_one_of_the_users(folder: Path) -> None:
    with pytest.raises(GameError, match=r"Helped: new_level raised KeyError") as caught:
        make_env("the_game:Helped").reset(seed=1)
    assert f"({folder}/the_helper.py:2: return {{}}[rng.integers(1)])" in str(caught.value)


def test_a_result_that_we_cannot_use() -> None:
    env = make_env("the_game:Forgets")
    env.reset(seed=1)
    with pytest.raises(GameError, match=r"Forgets: step raised TypeError.*= self\.play\(action\)\)$"):
        env.step(reply("1"))


def test_a_figure_cannot_have_a_name_that_the_records_need() -> None:
    with pytest.raises(GameError, match="TakesAName: a figure cannot be called evaluation: rename it"):
        make_env("the_game:TakesAName").reset(seed=1)


def test_figures_and_rewards_that_are_no_numbers() -> None:
    env = make_env("the_game:PaysNothing")
    env.reset(seed=1)
    with pytest.raises(GameError, match="PaysNothing: play gave the reward nan, which is no finite number"):
        env.step(reply("1"))
    env = make_env("the_game:Scores")
    with pytest.raises(GameError, match="Scores: figures gave score = inf, which is no finite number"):
        env.reset(seed=1)
    with pytest.raises(GameError, match="Scores: figures gave score = 'many'"):
        env.step(reply("1"))


def test_an_unknown_game_is_named_with_its_likely_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'frozen-lake'"):
        make_env("frozen_lake")


def test_what_python_takes_for_a_signal_is_an_error_too() -> None:
    with pytest.raises(GameError, match="Unpaintable: picture raised StopIteration"):
        make_env("the_game:Unpaintable").reset(seed=1)


def test_a_game_without_rules() -> None:
    with pytest.raises(GameError, match=r"Empty: system_prompt raised AttributeError.*rules"):
        _ = make_env("the_game:Empty").system_prompt


def test_a_game_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match=r"the_game:NeedsAFile cannot be made.*words\.txt"):
        make_env("the_game:NeedsAFile")


def test_the_mistakes_of_others_pass() -> None:
    env = make_env("the_game:Game")
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("")
    with pytest.raises(ConfigError, match="Game cannot be demonstrated"):
        env.expert_actions()
    assert type(env).remarks is TextEnv.remarks


@pytest.mark.parametrize("name", ["frozen-lake", "actfocus.envs.frozen_lake:FrozenLake"])
def test_a_bug_of_ours_keeps_its_type(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: TextEnv, rng: np.random.Generator) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("actfocus.envs.frozen_lake.FrozenLake.new_level", broken)
    with pytest.raises(ZeroDivisionError):
        make_env(name).reset(seed=1)
