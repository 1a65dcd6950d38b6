"""Our environments as tools: TRL's own loop plays them, and the arguments of the calls are the actions.

What the model says is written here (`Player.generate`); its forward pass, TRL's parsing, tool loop, masks and
rewards are real.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from transformers import LlamaForCausalLM

from actfocus.envs import ENVIRONMENTS, make_env
from actfocus.errors import ConfigError
from actfocus.focus import Role
from actfocus.integrations.trl import ActFocusGRPOTrainer, FocusConfig, GameTools
from tests.integrations.trl.scripted import MODEL, config, tokenizer

MOVES = ["Left", "Down || Right", "Jump", "Up"]


def tool_tokenizer() -> Any:
    found = copy.deepcopy(tokenizer())
    found.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
    found.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return found


class Player(LlamaForCausalLM):
    """Calls the tool until it is told that the game is over."""

    writer: Any = None

    def generate(self, input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        rows = []
        for row, ids in enumerate(input_ids.tolist()):
            text = self.writer.decode(ids)
            rounds = text.count("<tool_response>")
            call = json.dumps({"name": "act", "arguments": {"actions": MOVES[(row + rounds) % len(MOVES)]}})
            said = f"I go on.<tool_call>\n{call}\n</tool_call><|im_end|>"
            rows.append(self.writer.encode("Done.<|im_end|>" if "game is over" in text else said))
        width = max(map(len, rows))
        pad = self.writer.pad_token_id
        return torch.cat([input_ids, torch.tensor([r + [pad] * (width - len(r)) for r in rows])], dim=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    writer = tool_tokenizer()
    player = Player.from_pretrained(MODEL)
    player.resize_token_embeddings(len(writer))
    player.writer = writer
    player.generation_config.eos_token_id = writer.eos_token_id
    games = GameTools("frozen-lake", turns=2, success_rate=1.0)
    made = ActFocusGRPOTrainer(
        player,
        None,
        config(tmp_path_factory.mktemp("tools"), max_completion_length=600),
        games.dataset(8),
        environment_factory=games,
        processing_class=writer,
        roles="tools",
        focus=FocusConfig(),
    )
    made.train()
    return made, writer


def pieces(trained: Any, role: Role) -> list[list[str]]:
    """Per completion: the texts of its unbroken runs of tokens of that role."""
    made, writer = trained
    found = []
    for batch in made._buffered_inputs:
        for ids, roles in zip(batch["completion_ids"].tolist(), batch["focus_roles"].tolist(), strict=True):
            runs: list[list[int]] = [[]]
            for i, r in zip(ids, roles, strict=True):
                if r == role:
                    runs[-1].append(i)
                elif runs[-1]:
                    runs.append([])
            found.append([writer.decode(run) for run in runs if run])
    return found


def test_the_arguments_of_calls_are_the_actions(trained: Any) -> None:
    actions = pieces(trained, Role.ACTION)
    assert len(actions) == 8
    for row in actions:
        assert 1 <= len(row) <= 2
        assert all(json.loads(text)["actions"] in MOVES for text in row)
    for row in pieces(trained, Role.REASONING):
        assert row[:-1] == ["I go on."] * (len(row) - 1) and row[-1] == "Done."
    said = ["".join(row) for row in pieces(trained, Role.CONTEXT)]
    assert all("<tool_response>" in text and "The game is over." in text for text in said)


def test_the_environment_owns_the_reward(trained: Any) -> None:
    made, _ = trained
    tools = [tool for pool in made._environment_pool.values() for tool in pool]
    assert len(tools) == 8
    logged = made.state.log_history[0]
    mean = sum(tool.get_reward() for tool in tools) / 8
    assert logged["rewards/GameTool/mean"] == pytest.approx(mean, abs=1e-6)
    assert logged["tools/failure_frequency"] == 0
    assert logged["focus/action_share"] > 0
    # "Jump" is no action: it costs the penalty.
    assert any(tool.get_reward() <= -0.1 for tool in tools)


def test_a_tool_plays_the_environment() -> None:
    games = GameTools("frozen-lake", success_rate=1.0)
    tool, env = games(), make_env("frozen-lake", success_rate=1.0)
    assert tool.act("Left") == "The game is over."
    env.reset(seed=5)
    seen = tool.reset(level=5)
    while "game is over" not in seen:
        action = env.expert_actions()[0]
        env.step(f"<think></think><answer>{action}</answer>")
        seen = tool.act(action)
    assert tool.act("Left") == "The game is over."
    assert env.success and (tool.get_reward(), tool.success) == (1.0, True)
    tool.reset(level=5)
    assert (tool.get_reward(), tool.success) == (0.0, False)


def test_a_data_set_without_levels_is_refused() -> None:
    # Level 0 is one of evaluation: it must not be what every row of such a data set plays.
    with pytest.raises(ConfigError, match="names no level"):
        GameTools("frozen-lake")().reset(prompt="x", levels=3)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_observations_do_not_ask_for_tags(name: str) -> None:
    games = GameTools(name)
    tool = games()
    seen = tool.reset(level=3) + tool.act("nonsense") + str(games.dataset(1)[0]["prompt"])
    assert "<answer>" not in seen and "<think>" not in seen


def test_every_tool_and_episode_has_luck_of_its_own() -> None:
    games = GameTools("frozen-lake", success_rate=0.3)
    one, other = games(), games()

    def walk(tool: Any) -> str:
        tool.reset(level=3)
        return "".join(tool.act("Right || Down") for _ in range(4))

    walks = {walk(tool) for tool in (one, other) for _ in range(6)}
    assert len(walks) > 3
