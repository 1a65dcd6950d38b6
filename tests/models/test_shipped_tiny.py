"""The `tiny` that ships: it loads as any model does, and it speaks the language of its game as it is now."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from actfocus.config import EnvConfig, ModelConfig, WarmstartConfig
from actfocus.envs import make_env
from actfocus.focus import Role
from actfocus.models.registry import TINY_GAMES, tiny_path
from actfocus.rollout.sampler import Limits, sample_episodes
from actfocus.rollout.seeds import evaluation_starts
from actfocus.training.initial import load_initial
from actfocus.training.warmstart import wording_digest

each_game = pytest.mark.parametrize("name", TINY_GAMES)


@each_game
def test_it_is_a_hugging_face_model_of_at_most_three_million_parameters(name):
    model = AutoModelForCausalLM.from_pretrained(tiny_path(name))
    tokenizer = AutoTokenizer.from_pretrained(tiny_path(name))
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    text = "Turn 1: √ (2,1) <think>ü 😀</think>"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@each_game
def test_it_was_taught_the_present_wording(name):
    """If this fails, a rule or a remark has changed: build the models again with `make tiny`."""
    record = json.loads((tiny_path(name) / "warmstart.json").read_text())
    wording = record.pop("wording")
    assert wording == wording_digest(WarmstartConfig.model_validate_json(json.dumps(record)))


@each_game
def test_another_wording_has_another_digest(name, monkeypatch):
    """Of every game's remarks each one counts, also those that plain demonstrations never use."""
    config = WarmstartConfig(env=EnvConfig(name=name), plain_share=1.0)
    before = wording_digest(config)
    kind = type(make_env(name))
    original, seen = kind.remarks, []

    def remarks(self, rng):
        found = original(self, rng)
        seen.extend(found)
        return [sentence.replace(*swap) for sentence in found]

    monkeypatch.setattr(kind, "remarks", remarks)
    swap = ("", "")
    assert wording_digest(config) == before
    rare = {
        "frozen-lake": ["I am at", "The goal lies at", "One step up"],
        "sokoban": ["There is room", "No wall stops", "Cell ("],
        "sudoku": ["lacks", "In cell", "has all digits"],
        "webshop": ["does not say", "is listed first", "Nothing is left to choose"],
    }
    for words in rare[name]:
        assert any(words in sentence for sentence in seen)
        swap = (words, words.upper())
        assert wording_digest(config) != before


@each_game
def test_most_of_its_replies_are_well_formed_and_most_of_them_is_reasoning(name):
    policy, chat = load_initial(ModelConfig(), EnvConfig(name=name))
    records = sample_episodes(
        policy,
        chat,
        lambda: make_env(name),
        evaluation_starts(8, 1),
        limits=Limits(3600, 160),
        temperature=0.5,
    )
    malformed = [p is not None and "action" not in p for record in records for p in record.problems]
    assert sum(malformed) <= 0.2 * len(malformed)
    roles = [role for record in records for role in record.roles if role != Role.CONTEXT]
    assert roles.count(Role.ACTION) > 0
    assert roles.count(Role.REASONING) >= 0.75 * len(roles)
