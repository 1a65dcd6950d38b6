"""What TRL's own generation cuts off at `max_completion_length`: an unfinished reply has neither span.

The shipped model replies to real positions, and the limit cuts some of its replies in the thought, some in
the answer, some not at all. Roles are compared with the text, as in `test_games.py`, and advantages with
A · w / w̄.
"""

from collections import defaultdict
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from datasets import Dataset

from actfocus.envs import make_env
from actfocus.focus import Role
from actfocus.integrations.trl import ActFocusGRPOTrainer, FocusConfig
from tests.integrations.trl.scripted import MODEL, chat, config, parameters, tokenizer
from tests.integrations.trl.test_games import agree, expected, rows

ALPHA, OTHER = 0.1, 0.3


def positions() -> Dataset:
    texts = []
    for level in range(16):
        env = make_env("frozen-lake")
        observation, _ = env.reset(seed=level)
        texts.append(tokenizer().decode(chat().opening(env.system_prompt, observation)))
    return Dataset.from_dict({"prompt": texts})


def letters(completions: list[str], **kwargs: Any) -> list[float]:
    return [len(set(text)) / 10 + len(text) / 100 for text in completions]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A trainer after one update on 64 replies."""
    args = config(tmp_path_factory.mktemp("cut"), max_completion_length=45, per_device_train_batch_size=32)
    focus = FocusConfig(alpha=ALPHA, beta=0.5, other_weight=OTHER)
    found = ActFocusGRPOTrainer(MODEL, letters, args, positions(), focus=focus)
    before = parameters(found)
    found.train()
    assert any(not torch.equal(before[name], value) for name, value in parameters(found).items())
    return found


def test_a_reply_that_was_cut_has_neither_span(made: Any) -> None:
    assert 0 < made.state.log_history[0]["completions/clipped_ratio"] < 1
    replies = rows(made)
    assert len(replies) == 64
    places = defaultdict(list)
    for pieces, roles, weights in replies:
        text = "".join(pieces)
        assert agree(roles, expected(pieces)) and Role.CONTEXT not in roles
        if "</answer>" in text:
            places["nowhere" if text.endswith("<|end|>") else "behind"].append(text)
        else:
            assert len(pieces) == 45 and set(roles) == {Role.OTHER}
            assert weights == pytest.approx([OTHER] * 45)
            places["answer" if "<answer>" in text else "thought"].append(text)
    assert {"thought", "answer", "nowhere"} <= places.keys()
    assert any(Role.ACTION in roles for _, roles, _ in replies)


def test_weights_stay_with_their_tokens(made: Any) -> None:
    batches = made._buffered_inputs
    tokens = sum(int(batch["completion_mask"].sum()) for batch in batches)
    weight = sum(float(batch["focus_weights"].double().sum()) for batch in batches)
    rewards: dict[str, list[float]] = defaultdict(list)
    found = []
    for batch in batches:
        for number, ids in enumerate(batch["completion_ids"]):
            count = int(batch["completion_mask"][number].sum())
            prompt = tokenizer().decode(batch["prompt_ids"][number])
            [reward] = letters([tokenizer().decode(ids[:count], skip_special_tokens=True)])
            rewards[prompt].append(reward)
            found.append((prompt, reward, batch["focus_weights"][number], batch["advantages"][number]))
    for prompt, reward, weights, advantages in found:
        group = rewards[prompt]
        assert len(group) == 4
        advantage = (reward - mean(group)) / (stdev(group) + 1e-4)
        wanted = advantage * weights / (weight / tokens)
        assert torch.allclose(advantages, wanted.float(), rtol=1e-3, atol=1e-4)
    weights_of: dict[int, set[float]] = defaultdict(set)
    for _, roles, weights in rows(made):
        for role, value in zip(roles, weights, strict=True):
            weights_of[role].add(value)
    assert list(weights_of[Role.REASONING]) == pytest.approx([ALPHA])
    assert all(1 < value < 1.5 for value in weights_of[Role.ACTION])
