"""Our games over OpenEnv: a real server, OpenEnv's real client, and the same game played without either.

1. Texts, rewards, ends and everything else that a client is told are those of the game itself.
2. Sessions do not disturb each other, one after the other or at the same time.
3. A mistake of the client's is answered in words, and costs neither the session nor the episode.
"""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openenv", reason="needs openenv: pip install 'actfocus[openenv]'")

import httpx
import uvicorn
from openenv import GenericEnvClient

from actfocus.envs import EVALUATION_SEEDS, TextEnv, make_env
from actfocus.errors import ConfigError
from actfocus.integrations.openenv import (
    GameAction,
    GameClient,
    GameObservation,
    GameState,
    create_game_app,
)

GAMES = ("frozen-lake", "sokoban", "sudoku", "webshop")
COMMAND = [sys.executable, "-m", "actfocus.integrations.openenv"]


@contextmanager
def served(game: str, **settings: Any) -> Iterator[str]:
    """The address of a server in a thread."""
    config = uvicorn.Config(create_game_app(game, **settings), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def frozen_lake() -> Iterator[str]:
    """The address of a FrozenLake server that was started as a user starts it; with slips."""
    command = [*COMMAND, "--env", "frozen-lake", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"running on (http://\S+)", line):
                    # Read on, so that the pipe cannot fill and stop the server.
                    threading.Thread(target=process.stderr.read, daemon=True).start()
                    yield found[1]
                    break
            else:
                pytest.fail(f"the server did not start: {''.join(said)}")
        finally:
            process.terminate()


def reply(env: TextEnv, rng: np.random.Generator) -> str:
    """What a player might say: mostly the expert's actions, at times random, unknown or malformed."""
    kind = rng.random()
    if kind < 0.1:
        return "I would go right."
    if kind < 0.2:
        return "<think>Hm.</think><answer>dance</answer>"
    actions = env.expert_actions() if kind < 0.8 else []
    actions = actions[: env.actions_per_turn] or [env.random_action(rng)]
    return f"<think>Hm. ä → {rng.integers(9)}</think><answer>{' || '.join(actions)}</answer>"


def play_both(client: Any, game: str, seed: int, chance_seed: int | None = None, **settings: Any) -> float:
    """Play one episode here and there, comparing everything; its return."""
    env, rng, total = make_env(game, **settings), np.random.default_rng(seed), 0.0
    options = {} if chance_seed is None else {"chance_seed": chance_seed}
    text, info = env.reset(seed=seed, options=options)
    result = client.reset(seed=seed, **options)
    assert result.observation == GameObservation(
        text=text, system_prompt=env.system_prompt, figures=info["figures"]
    )
    assert (result.reward, result.done) == (None, False)
    turns = 0
    while not result.done:
        said = reply(env, rng)
        text, reward, terminated, truncated, info = env.step(said)
        result = client.step(GameAction(reply=said))
        total, turns = total + reward, turns + 1
        done = terminated or truncated
        assert (result.reward, result.done) == (reward, done)
        assert result.observation == GameObservation(
            text=text, reward=reward, done=done, truncated=truncated, **info
        )
        state = client.state()
        assert (state.step_count, state.total_return, state.done) == (turns, total, done)
        assert (state.level_seed, state.chance_seed, state.success) == (seed, chance_seed, env.success)
    return total


@pytest.mark.parametrize("game", GAMES)
def test_an_episode_is_the_game_itself(game: str) -> None:
    with served(game) as address, GameClient(base_url=address).sync() as client:
        returns = [play_both(client, game, seed) for seed in (0, 3, 10**9, 2**62)]
    # Not a comparison of nothing with nothing: the script wins some episodes and is penalised in others.
    assert len(set(returns)) > 1


def test_the_settings_and_the_seed_of_chance_get_there() -> None:
    settings = {"turns": 3, "success_rate": 0.5}
    with served("frozen-lake", **settings) as address, GameClient(base_url=address).sync() as client:
        for chance_seed in range(6):
            play_both(client, "frozen-lake", 5, chance_seed, **settings)


def test_a_server_in_a_process_of_its_own(frozen_lake: str) -> None:
    with GameClient(base_url=frozen_lake).sync() as client:
        for seed in range(4):
            play_both(client, "frozen-lake", seed)


def test_the_client_without_our_package(frozen_lake: str) -> None:
    """OpenEnv's generic client, asynchronously: dictionaries instead of our classes."""
    env = make_env("frozen-lake")
    opening, _ = env.reset(seed=2)
    after, reward, *_ = env.step("nonsense")

    async def play() -> tuple[Any, Any]:
        async with GenericEnvClient(base_url=frozen_lake) as client:
            return await client.reset(seed=2), await client.step({"reply": "nonsense"})

    first, second = asyncio.run(play())
    assert first.observation["text"] == opening
    assert (second.observation["text"], second.reward) == (after, reward)


def test_a_malformed_reply_costs_the_penalty_and_a_turn(frozen_lake: str) -> None:
    with GameClient(base_url=frozen_lake).sync() as client:
        client.reset(seed=1)
        result = client.step(GameAction(reply="Right"))
    assert result.reward == -0.1
    assert result.observation.problem == "missing <think> </think> <answer> </answer>"
    assert result.observation.text.startswith("Turn 2 of 5. Reward of the last turn: -0.1.")


def test_sessions_in_turn_do_not_disturb_each_other() -> None:
    own = [make_env("sudoku") for _ in range(2)]

    def step_both(client: Any, env: TextEnv) -> None:
        said = f"<think>Hm.</think><answer>{env.expert_actions()[0]}</answer>"
        text, *_, info = env.step(said)
        observation = client.step(GameAction(reply=said)).observation
        assert (observation.text, observation.played) == (text, info["played"])

    with (
        served("sudoku") as address,
        GameClient(base_url=address).sync() as a,
        GameClient(base_url=address).sync() as b,
    ):
        openings = [client.reset(seed=seed).observation.text for seed, client in enumerate((a, b))]
        assert openings == [env.reset(seed=seed)[0] for seed, env in enumerate(own)]
        assert openings[0] != openings[1]
        for _ in range(2):
            step_both(a, own[0])
            step_both(b, own[1])
        # The end of one session is not the end of the other.
        a.close()
        step_both(b, own[1])


@pytest.mark.parametrize("game", ["frozen-lake", "webshop"])
def test_sessions_at_the_same_time_do_not_disturb_each_other(game: str) -> None:
    with served(game) as address:

        def play(first: int) -> None:
            with GameClient(base_url=address).sync() as client:
                for seed in range(first, first + 3):
                    play_both(client, game, seed)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(play, (0, 10, 20, 30)))


def test_without_a_seed_a_level_is_no_evaluation_level_and_can_be_played_again(frozen_lake: str) -> None:
    with GameClient(base_url=frozen_lake).sync() as client:
        texts, seeds = [], []
        for _ in range(8):
            texts.append(client.reset().observation.text)
            seeds.append(client.state().level_seed)
        assert len(set(seeds)) == 8
        assert not set(seeds) & set(EVALUATION_SEEDS)
        assert client.reset(seed=seeds[0]).observation.text == texts[0]


BAD_RESETS = {
    "seed must be an integer of 0 or more, got 'seven'": {"seed": "seven"},
    "seed must be an integer of 0 or more, got -1": {"seed": -1},
    "seed must be an integer of 0 or more, got True": {"seed": True},
    "chance_seed must be an integer of 0 or more, got 0.5": {"chance_seed": 0.5},
    "reset has no 'sede': it takes seed, episode_id, chance_seed; did you mean 'seed'?": {"sede": 3},
}


def test_mistakes_are_answered_in_words_and_cost_nothing(frozen_lake: str) -> None:
    right = "<think>Hm.</think><answer>Right</answer>"
    env = make_env("frozen-lake")
    env.reset(seed=4)
    with GenericEnvClient(base_url=frozen_lake).sync() as client:
        with pytest.raises(RuntimeError, match=r"no episode yet: call reset\(\) before step\(\)"):
            client.step({"reply": right})
        client.reset(seed=4, episode_id="mine")
        for message, arguments in BAD_RESETS.items():
            with pytest.raises(RuntimeError, match=re.escape(message)):
                client.reset(**arguments)
        for action in ({}, {"answer": right}, {"reply": 3}, {"reply": right, "temperature": 1}):
            with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
                client.step(action)
        # The episode stands where it stood, and ends as it would have.
        assert client.state()["episode_id"] == "mine"
        over = False
        while not over:
            text, _, terminated, truncated, _ = env.step(right)
            result = client.step({"reply": right})
            over = terminated or truncated
            assert (result.observation["text"], result.done) == (text, over)
        with pytest.raises(RuntimeError, match=r"The episode is over: call reset\(\) before step\(\)"):
            client.step({"reply": right})
        assert client.reset(seed=4).done is False


def test_one_session_too_many_is_refused_and_a_free_place_is_given_again() -> None:
    with served("frozen-lake", sessions=1) as address:
        with GameClient(base_url=address).sync() as client:
            client.reset(seed=0)
            with (
                pytest.raises(Exception, match=r"at capacity: 1/1"),
                GameClient(base_url=address).sync() as second,
            ):
                second.reset(seed=0)
        with GameClient(base_url=address).sync() as client:
            assert client.reset(seed=0).observation.text == make_env("frozen-lake").reset(seed=0)[0]


def test_plain_http(frozen_lake: str) -> None:
    with httpx.Client(base_url=frozen_lake) as http:
        assert http.get("/health").json()["status"] == "healthy"
        metadata = http.get("/metadata").json()
        assert metadata["name"] == "actfocus-frozen-lake"
        assert metadata["description"] == make_env("frozen-lake").rules
        schema = http.get("/schema").json()
        assert schema["action"]["required"] == ["reply"]
        assert set(schema["state"]["properties"]) == set(GameState.model_fields)
        opening = http.post("/reset", json={"seed": 6}).json()["observation"]["text"]
        assert opening == make_env("frozen-lake").reset(seed=6)[0]
        # There is an episode in a session alone: a client that tries is told so.
        wrong = http.post("/step", json={"action": {"reply": "x"}})
        assert wrong.status_code == 400
        assert "both on one connection (/ws)" in wrong.json()["detail"]
        wrong = http.post("/reset", json={"sede": 6})
        assert (wrong.status_code, wrong.json()["detail"]) == (400, list(BAD_RESETS)[-1])


def test_wrong_settings_are_refused_before_there_is_a_server() -> None:
    with pytest.raises(ConfigError, match="sokoban cannot be made with clues = 3"):
        create_game_app("sokoban", clues=3)
    with pytest.raises(ConfigError, match="sessions must be at least 1, got 0"):
        create_game_app("sokoban", sessions=0)
    done = subprocess.run([*COMMAND, "--env", "no_such:Game"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: cannot find the game no_such:Game: ModuleNotFoundError: No module named 'no_such'\n"
    )
