"""Our games in verifiers: its own rollouts and commands, and a small server in the place of a model.

The server speaks OpenAI's protocol on loopback. It knows the levels of the taskset and plays the game along
with the chat, so that a scripted player can answer.

1. No training level is an evaluation level; evaluation plays the starts that ours plays.
2. An episode is the game itself: every message, the return, the success.
3. The expert always wins, noise never.
4. What goes wrong is an error of the episode in words, never a score of 0.
"""

import asyncio
import json
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("verifiers", reason="needs verifiers: pip install 'actfocus[verifiers]'")

import verifiers.v1 as vf
from verifiers.v1.cli.eval.runner import run_eval
from verifiers.v1.configs.cli.eval import EvalConfig
from verifiers.v1.serve import pool
from verifiers.v1.serve.client import EnvClient

from actfocus.config import EnvConfig
from actfocus.envs import EVALUATION_SEEDS, TextEnv, configured_env
from actfocus.integrations.verifiers import GameTask
from actfocus.rollout.seeds import Stream, derive_seed, evaluation_starts

GAMES = ("frozen-lake", "sokoban", "sudoku", "webshop")
COMMANDS = Path(sys.executable).parent
"""Where verifiers installs its own commands."""

Message = dict[str, str]
Player = Callable[[TextEnv], Message]
"""From the game as it stands to the message that the model answers with."""


def say(text: str) -> Message:
    return {"content": text}


def expert(env: TextEnv) -> Message:
    answer = " || ".join(env.expert_actions()[: env.actions_per_turn])
    return say(f"<think>I know the way.</think><answer>{answer}</answer>")


def noise(env: TextEnv) -> Message:
    rng = np.random.default_rng(env.turn)
    return say("".join(map(chr, rng.integers(32, 127, 40))))


def mixed(env: TextEnv) -> Message:
    """What needs no knowledge of the slips, which only the episode knows: random, unknown and no actions."""
    rng = np.random.default_rng([env.turn, len(env.picture())])
    answer = [env.random_action(rng), "dance", f"{env.random_action(rng)} || dance"][rng.integers(3)]
    return say(f"<think>Hm. ä</think><answer>{answer}</answer>" if env.turn != 2 else "No.")


def standing(game: EnvConfig, data: dict[str, Any], replies: list[str]) -> TextEnv:
    """The game of a level after some replies."""
    env = configured_env(game)
    env.reset(seed=data["level_seed"])
    for text in replies:
        env.step(text)
    return env


@contextmanager
def model(tasks: list[GameTask], player: Player, status: int = 200) -> Iterator[str]:
    """The address of a server whose model plays those levels as `player` does."""
    levels = {task.data.prompt: task.data.model_dump() for task in tasks}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            system, first, *later = request["messages"]
            assert (self.path, system["role"], first["role"]) == ("/v1/chat/completions", "system", "user")
            data = levels[first["content"]]
            replies = [message["content"] for message in later if message["role"] == "assistant"]
            try:
                env = standing(EnvConfig(**data["game"]), data, replies)
                answer = player(env)
            except Exception:
                # With slips, the game may be over here and not there: any reply will do.
                answer = say("No.")
            self.answer({"error": {"message": "no such model"}} if status != 200 else completion(answer))

        def answer(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(message: Message) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]} | {
        "usage": usage
    }


def settings(game: str, rows: int = 6, split: str = "evaluation", **more: Any) -> dict[str, Any]:
    slips = {"success_rate": 1.0} if game == "frozen-lake" else {}
    return {"id": "actfocus-games", "game": {"name": game} | slips, "rows": rows, "split": split} | more


def load(taskset: dict[str, Any]) -> list[GameTask]:
    return list(vf.load_taskset(vf.resolve_env_config({"taskset": taskset}).taskset))


def client_settings(address: str) -> dict[str, str]:
    return {"base_url": address, "api_key_var": "NO_SUCH_KEY"}


def episodes(
    folder: Path, taskset: dict[str, Any], player: Player, status: int = 200, n: int = 1, **seat: Any
) -> list[vf.Episode]:
    """What verifiers' evaluation makes of a taskset and a player."""
    with model(load(taskset), player, status) as address:
        config = EvalConfig(
            env={"taskset": taskset, "agent": seat},
            model="m",
            client=client_settings(address),
            num_rollouts=n,
            push=False,
            rich=None,
            output_dir=folder,
        )
        return asyncio.run(run_eval(config))


def traces(*args: Any, **more: Any) -> list[vf.Trace]:
    """The one trace of each episode, none of which may have failed."""
    found = episodes(*args, **more)
    assert [error.message for episode in found for error in episode.errors] == []
    return [trace for episode in found for trace in episode.traces]


def assert_the_game_itself(trace: Any) -> None:
    """The chat, the return and the success are those of the game, played again without verifiers."""
    data, record = trace.task.data, trace.info["game"]
    env = configured_env(EnvConfig(**data.game))
    text, _ = env.reset(seed=data.level_seed, options={"chance_seed": record["chance_seed"]})
    expected = [("system", env.system_prompt), ("user", text)]
    said = [message for message in trace.branches[-1].messages if message.role == "assistant"]
    total, over, problems = 0.0, False, []
    for message in said:
        assert not over
        text, reward, terminated, truncated, info = env.step(message.content)
        total, over = total + reward, terminated or truncated
        problems.append(info["problem"])
        expected += [("assistant", message.content)] + [("user", text)] * (not over)
    assert over
    assert [(message.role, message.content) for message in trace.branches[-1].messages] == expected
    assert record["problems"] == problems
    assert record["ended"] == ("terminated" if terminated else "truncated")
    assert trace.rewards["episode_return"].score == trace.reward == total
    assert trace.rewards["success"].score == env.success
    assert trace.metrics == {
        "turns": len(said),
        "problem_share": sum(problem is not None for problem in problems) / len(said),
        **info["figures"],
    }


@pytest.mark.parametrize("game", GAMES)
def test_the_rows_are_start_states_and_no_training_level_is_an_evaluation_level(game: str) -> None:
    training, evaluation = load(settings(game, split="train")), load(settings(game))
    assert not {task.data.level_seed for task in training} & set(EVALUATION_SEEDS)
    assert [task.data.level_seed for task in training] == [
        derive_seed(Stream.LEVEL, 0, row) for row in range(6)
    ]
    starts = evaluation_starts(6, 1)
    assert [task.data.level_seed for task in evaluation] == [start.level_seed for start in starts]
    for task in training + evaluation:
        env = configured_env(EnvConfig(**task.data.game))
        assert (env.reset(seed=task.data.level_seed)[0], env.system_prompt) == (
            task.data.prompt,
            task.data.system_prompt,
        )
    again, other = load(settings(game, split="train")), load(settings(game, split="train", seed=1))
    assert [task.data for task in again] == [task.data for task in training]
    assert not {task.data.level_seed for task in other} & {task.data.level_seed for task in training}
    assert len({task.key for task in training + evaluation}) == 12


@pytest.mark.parametrize("game", GAMES)
def test_the_expert_always_wins(game: str, tmp_path: Path) -> None:
    found = traces(tmp_path, settings(game), expert)
    assert [trace.rewards["success"].score for trace in found] == [1.0] * 6
    assert max(len(trace.info["game"]["problems"]) for trace in found) > 1, "no episode had two turns"
    for trace in found:
        assert_the_game_itself(trace)
        assert trace.metrics["problem_share"] == 0


@pytest.mark.parametrize("game", GAMES)
def test_noise_never_wins(game: str, tmp_path: Path) -> None:
    for trace in traces(tmp_path, settings(game, split="train"), noise):
        assert_the_game_itself(trace)
        assert trace.rewards["success"].score == 0
        assert trace.reward == pytest.approx(-0.1 * trace.metrics["turns"])
        assert (trace.metrics["problem_share"], trace.info["game"]["ended"]) == (1, "truncated")


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_the_members_of_a_group_share_the_level_and_not_the_luck(split: str, tmp_path: Path) -> None:
    taskset = settings("frozen-lake", 3, split, seed=4)
    taskset["game"]["success_rate"] = 0.5
    found = traces(tmp_path, taskset, mixed, n=4)
    for trace in found:
        assert_the_game_itself(trace)
    luck = sorted((t.task.data.idx, t.task.data.level_seed, t.info["game"]["chance_seed"]) for t in found)
    # Those of `actfocus eval`, where it is evaluation; the same in every run, where it is not.
    ours = [(start.group, start.level_seed, start.chance_seed) for start in evaluation_starts(3, 4)]
    if split == "train":
        levels = [derive_seed(Stream.LEVEL, 4, row) for row in range(3)]
        ours = [
            (row, levels[row], derive_seed(Stream.CHANCE, 4, row, m)) for row in range(3) for m in range(4)
        ]
    assert luck == sorted(ours)
    assert len({t.reward for t in found}) > 1


def test_reasoning_that_the_server_hands_over_apart_is_part_of_the_reply(tmp_path: Path) -> None:
    def apart(env: TextEnv) -> Message:
        reasoning, answer = expert(env)["content"].removeprefix("<think>").split("</think>")
        return {"content": answer, "reasoning_content": reasoning}

    # The scripted player replays the replies without their reasoning, so that one turn has to be enough.
    easy = settings("frozen-lake", 3)
    easy["game"] |= {"actions_per_turn": 10}
    for trace in traces(tmp_path, easy, apart):
        assert trace.info["game"]["problems"] == [None]
        assert trace.reward == 1


def test_what_counts_is_the_runs_choice(tmp_path: Path) -> None:
    def late(env: TextEnv) -> Message:
        return expert(env) if env.turn > 1 else say("Let me see.")

    taskset = settings("webshop", 3)
    assert [trace.reward for trace in traces(tmp_path / "a", taskset, late)] == pytest.approx([0.9] * 3)
    taskset["task"] = {"rewards": {"success": {"weight": 1.0}, "episode_return": {"weight": 0.0}}}
    assert [trace.reward for trace in traces(tmp_path / "b", taskset, late)] == [1.0] * 3


def test_a_limit_of_verifiers_ends_the_episode_and_is_said(tmp_path: Path) -> None:
    for trace in traces(tmp_path, settings("webshop", 2), noise, max_turns=3):
        assert trace.info["game"]["ended"] == "cut"
        assert (trace.metrics["turns"], trace.reward) == (3, pytest.approx(-0.3))


def test_a_model_that_fails_is_an_error_and_no_score(tmp_path: Path) -> None:
    for episode in episodes(tmp_path, settings("frozen-lake", 2), expert, status=404):
        (trace,) = episode.traces
        assert not episode.ok
        assert trace.last_error.type == "ProviderError"
        assert "no such model" in trace.last_error.message
        assert trace.rewards == {}


def test_a_level_that_looks_otherwise_than_its_task_is_refused() -> None:
    taskset = settings("frozen-lake", 1)
    (task,) = load(taskset)
    env = vf.load_environment(vf.resolve_env_config({"taskset": taskset}))
    context = vf.ModelContext(model="m", client=vf.EvalClientConfig(base_url="http://127.0.0.1:9/v1"))

    async def run() -> vf.Episode:
        async with env.serving():
            return await env.run_episode(task.with_data(prompt="Another lake."), context)

    (error,) = asyncio.run(run()).errors
    assert "frozen-lake level 0 looks otherwise than in the task" in error.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"game": {"name": "frozenlake"}}, "did you mean 'frozen-lake'"),
        ({"game": {"name": "sokoban", "success_rate": 1.0}}, "success_rate belongs to frozen-lake"),
        ({"rows": 1_000_001}, "there are 1000000 evaluation levels, not 1000001"),
        ({"rows": 0}, "greater than or equal to 1"),
        ({"spilt": "train"}, "spilt"),
    ],
)
def test_wrong_settings_are_refused_in_words(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(settings("frozen-lake") | change)


def test_the_command_line_and_a_replay_of_its_scores(tmp_path: Path) -> None:
    game = ["--env.taskset.game.name", "frozen-lake", "--env.taskset.game.success-rate", "1"]
    rows = ["--env.taskset.split", "evaluation", "--env.taskset.rows", "3"]
    run = ["--no-push", "--no-rich", "--output-dir", str(tmp_path), "--run.dir", "played", "-m", "m"]
    with model(load(settings("frozen-lake", 3)), expert) as address:
        client = ["--client.base-url", address, "--client.api-key-var", "NO_SUCH_KEY"]
        command(["vf-eval", "actfocus-games", *game, *rows, *run, *client])
    replay = ["vf-replay", str(tmp_path / "played"), "--no-rich", "--output-dir", str(tmp_path / "again")]
    # verifiers takes the taskset from the run only where nothing of it is given anew.
    other = ["--taskset.id", "actfocus-games", "--taskset.task.rewards.success.weight", "2"]
    command([*replay, *other])
    for folder, reward in (("played", 1.0), ("again", 3.0)):
        (file,) = (tmp_path / folder).rglob("traces.jsonl")
        found = [json.loads(line) for line in file.read_text().splitlines()]
        found = [trace for one in found for trace in one.get("traces", [one])]
        scores = [sum(r["score"] * r["weight"] for r in trace["rewards"].values()) for trace in found]
        assert scores == [reward] * 3


def command(arguments: list[str]) -> None:
    name, *rest = arguments
    done = subprocess.run([COMMANDS / name, *rest], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_of_a_trainer_play_with_luck_of_their_own() -> None:
    """Processes that know nothing of ours find the games by the taskset's id."""
    taskset = settings("frozen-lake", 1)
    taskset["game"]["success_rate"] = 0.5
    config = pool.env_config_data(vf.resolve_env_config({"taskset": taskset}))
    spawn = multiprocessing.get_context("spawn")
    addresses = spawn.Queue()
    how = {"max_workers": 2, "elastic": False, "address": "tcp://127.0.0.1:0", "config_data": config}
    server = spawn.Process(target=pool.serve_env, kwargs=how | {"address_queue": addresses})
    server.start()
    try:
        (task,) = load(taskset)
        with model([task], mixed) as address:
            found = asyncio.run(play_remotely(addresses.get(timeout=120), task, address))
    finally:
        server.terminate()
        server.join(30)
        server.kill()
    assert [error.message for episode in found for error in episode.errors] == []
    chance_seeds = set()
    for episode in found:
        (trace,) = episode.traces
        assert_the_game_itself(trace)
        chance_seeds.add(trace.info["game"]["chance_seed"])
    assert len(chance_seeds) == 6


async def play_remotely(server: str, task: GameTask, address: str) -> list[Any]:
    client = EnvClient(server)
    try:
        await client.wait_for_server_startup()
        config, data = vf.EvalClientConfig(**client_settings(address)), task.data.model_dump(mode="json")
        runs = [client.run(config, "m", vf.SamplingConfig(), data) for _ in range(6)]
        async with asyncio.timeout(120):  # else it would wait for ever for workers that are dead
            return list(await asyncio.gather(*runs))
    finally:
        await client.close()
