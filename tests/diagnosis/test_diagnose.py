"""The whole diagnosis, promises:

1. A model in an environment, a run sampled anew, a run as recorded, and transcripts: each gives figures,
   picture and verdict; equal input gives equal figures.
2. What is computed is what its parts compute: correlations from the signals, weights from the focus.
3. New episodes begin in states of the training seeds' stream that training itself never uses.
4. A run's reference is the model that it was started from; a run that lost it is refused.
5. What is computed before something fails is written; where nothing is, no folder stays.
"""

import gzip
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actfocus.config import EnvConfig, FocusConfig, ModelConfig
from actfocus.diagnosis.diagnose import diagnose
from actfocus.diagnosis.request import Request
from actfocus.diagnosis.signals import SIGNALS
from actfocus.diagnosis.subjects import recorded_episodes, sample_groups, subject_of
from actfocus.errors import ConfigError, ModelError, RunError
from actfocus.focus import bottleneck
from actfocus.focus.bottleneck import SCOPES
from actfocus.models.loading import load
from actfocus.report.progress import SilentProgress
from actfocus.rollout.batch import collate
from actfocus.rollout.sampler import Limits, sample_episodes
from actfocus.rollout.seeds import training_starts
from actfocus.run_directory import RunDirectory
from actfocus.training.run import train

CPU = torch.device("cpu")
SILENT = SilentProgress()
EXAMPLE = Path(__file__).parents[2] / "examples" / "transcripts.jsonl"


@pytest.fixture
def request_of(model_folder):
    def make(**changes):
        small = {
            "model": str(model_folder),
            "env": EnvConfig(name="frozen-lake", turns=2, actions_per_turn=1),
            "groups": 4,
            "group": 3,
            "context": 520,
            "response": 20,
            "micro_batch": 5,
        }
        return Request(**{**small, **changes})

    return make


def check_result(result, out):
    saved = json.loads((out / "diagnosis.json").read_text(), parse_constant=pytest.fail)
    assert saved == result
    assert {path.name for path in out.iterdir()} == {"diagnosis.json", "bottleneck.png", "bottleneck.svg"}
    assert set(result["correlations"]) == set(SIGNALS)
    for by_scope in result["correlations"].values():
        assert set(by_scope) == {"all", "reasoning", "action"}
    assert result["tested"] == {"signal": "energy", "scope": "action"}
    assert result["bootstrap"] == {"resamples": 5000, "seed": 0, "level": 0.95, "over": "groups"}
    sampled = sum(result["tokens"].values())
    assert result["action_share"] == pytest.approx(result["tokens"]["action"] / sampled)


def test_a_model_in_an_environment(request_of, tmp_path):
    result = diagnose(request_of(), tmp_path / "out" / "deep", progress=SILENT)
    check_result(result, tmp_path / "out" / "deep")
    assert (result["groups"], result["episodes"]) == (4, 12)
    assert result["correlations"]["shift"]["all"]["rho"] is None
    assert any("its own reference" in note for note in result["notes"])
    assert result["verdict"]["finding"] == "too little data"
    again = diagnose(request_of(), tmp_path / "again", progress=SILENT)
    assert again == result


def test_the_figures_are_those_of_the_parts(request_of, tmp_path):
    request = request_of(groups=5, focus=FocusConfig(alpha=0.3, beta=0.0))
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    subject = subject_of(request, CPU, SILENT)
    batch = collate(subject.records)
    policy, _ = load_policy(request)
    energies_BT = torch.zeros(batch.ids_BT.shape)
    with torch.no_grad():
        logits_BTV = policy.causal_lm(input_ids=batch.ids_BT).logits
    energies_BT[:, 1:] = -logits_BTV[:, :-1].logsumexp(-1)
    expected = bottleneck(energies_BT, batch.roles_BT, batch.returns_B, batch.groups_B)
    for scope, found in result["correlations"]["energy"].items():
        assert found["groups"] == expected.groups[scope]
        rho = None if math.isnan(expected.rho[scope]) else pytest.approx(expected.rho[scope])
        assert found["rho"] == rho
    assert result["correlations"]["energy"]["all"]["rho"] is not None
    gradient = result["gradient"]
    assert gradient["focus"]["alpha"] == 0.3
    before, after = gradient["before"]["reasoning"], gradient["after"]["reasoning"]
    assert after["per_token"] == pytest.approx(0.3 * before["per_token"])


def load_policy(request):
    return load(ModelConfig(name=request.model))


def test_episodes_are_those_of_a_step_that_training_never_samples(request_of, model_folder):
    request = request_of(seed=5)
    subject = subject_of(request, CPU, SILENT)
    assert [record.start for record in subject.records] == training_starts(5, 0, 4, 3)
    limits = Limits(520, 20)
    together = sample_episodes(
        subject.agent.policy,
        subject.agent.chat,
        lambda: _make(request.env),
        training_starts(5, 0, 4, 3),
        limits=limits,
    )
    assert [record.ids for record in together] == [record.ids for record in subject.records]


def _make(env):
    from actfocus.envs import configured_env

    return configured_env(env)


def test_whole_groups_are_sampled_in_portions(request_of, monkeypatch):
    monkeypatch.setattr("actfocus.diagnosis.subjects.EPISODES_AT_ONCE", 7)
    subject = subject_of(request_of(), CPU, SILENT)
    again = sample_groups(
        subject.agent,
        request_of().env,
        seed=0,
        groups=4,
        group=3,
        limits=Limits(520, 20),
        progress=SILENT,
    )
    assert [record.ids for record in again] == [record.ids for record in subject.records]
    monkeypatch.undo()
    whole = subject_of(request_of(), CPU, SILENT)
    assert [record.ids for record in whole.records] == [record.ids for record in subject.records]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_run(finished, tmp_path, recorded):
    run = finished("grpo")
    request = Request(run=run, recorded=recorded, groups=3, group=2)
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    check_result(result, tmp_path / "out")
    about = result["about"]
    assert (about["kind"], about["step"]) == ("recorded" if recorded else "run", 3)
    if recorded:
        assert about["steps"] == [2, 3] and result["groups"] == 4 and result["episodes"] == 16
        assert any("pooled" in note for note in result["notes"])
        alone = subject_of(Request(run=run, recorded=True, step=3), CPU, SILENT)
        assert len(alone.records) == 8 and not any("pooled" in note for note in alone.notes)
        records, _ = recorded_episodes(RunDirectory.open(run), 3)
        with gzip.open(run / "episodes" / "step_3.jsonl.gz", "rt") as file:
            lines = [json.loads(line) for line in file]
        assert [record.ids for record in records] == [line["ids"] for line in lines]
        assert [record.total_return for record in records] == [line["return"] for line in lines]
    else:
        assert result["episodes"] == 6 and about["seed"] == 5


def test_the_reference_of_a_run_is_its_initial_model(finished, model_folder):
    subject = subject_of(Request(run=finished("grpo"), groups=1, group=2), CPU, SILENT)
    assert not subject.agent.is_reference
    initial, _ = load_policy(Request(model=str(model_folder)))
    with subject.agent.frozen() as reference:
        found = reference.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in initial.model.state_dict().items())
    assert any(
        not torch.equal(found[name], tensor)
        for name, tensor in subject.agent.policy.model.state_dict().items()
    )


def test_a_run_with_adapters(make_config, tmp_path):
    config = make_config(model={"lora_rank": 2}, steps=1, optimizer={"lr": 0.1})
    train(config, tmp_path / "run", progress=SILENT)
    request = Request(run=tmp_path / "run", groups=3, group=3)
    subject = subject_of(request, CPU, SILENT)
    assert subject.agent.policy.has_adapters and not subject.agent.is_reference
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    check_result(result, tmp_path / "out")
    assert not any("its own reference" in note for note in result["notes"])


def test_a_run_that_lost_its_initial_model_is_refused(finished, tmp_path):
    run = tmp_path / "run"
    _copy(finished("grpo"), run)
    environment = json.loads((run / "environment.json").read_text())
    environment["initial_weights"] = "0" * 64
    (run / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(RunError, match="its reference is lost"):
        subject_of(Request(run=run), CPU, SILENT)


def test_damaged_and_missing_records(finished, tmp_path):
    run = tmp_path / "run"
    _copy(finished("grpo"), run)
    with pytest.raises(RunError, match="no episodes of step 7; it has those of 2, 3"):
        recorded_episodes(RunDirectory.open(run), 7)
    path = run / "episodes" / "step_2.jsonl.gz"
    record = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    broken = [
        ({"roles": [1]}, "one role and one log-probability per token"),
        ({"logprobs": [None, *record["logprobs"][1:]]}, "must be finite numbers"),
        ({"rewards": [math.nan]}, "must be finite numbers"),
        ({"roles": [0, 4, *record["roles"][2:]]}, "roles must be 0 to 3"),
        ({"roles": [1, *record["roles"][1:]]}, "must begin with a token of the prompt"),
        ({"ids": ["a", *record["ids"][1:]]}, "must be whole numbers"),
        ({"start": record["start"] | {"group": None}}, "must be whole numbers"),
    ]
    lines = [(json.dumps(record) + "\n" + json.dumps(record | change), said) for change, said in broken]
    for damage, said in [(b"nonsense", ""), *((gzip.compress(text.encode()), said) for text, said in lines)]:
        path.write_bytes(damage)
        with pytest.raises(RunError, match=rf"step_2.jsonl.gz is damaged: .*{said}"):
            recorded_episodes(RunDirectory.open(run), None)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(RunError, match="hold no episode"):
        recorded_episodes(RunDirectory.open(run), 2)


def _copy(source, target):
    import shutil

    shutil.copytree(source, target)


def test_transcripts(tmp_path, model_folder):
    request = Request(transcripts=EXAMPLE, model=str(model_folder), gradient_groups=2)
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    check_result(result, tmp_path / "out")
    assert (result["groups"], result["groups_without_variance"], result["episodes"]) == (12, 4, 48)
    assert result["gradient"]["groups"] == 2
    assert result["mean_return"] == pytest.approx(34 / 48)
    assert any("<tool_call> text" in note for note in result["notes"])


def test_the_docs_name_every_key(tmp_path, model_folder):
    request = Request(transcripts=EXAMPLE, model=str(model_folder), gradient_groups=2)
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    text = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text()
    named = set(re.findall(r"`(\w+)`", text.partition("## `diagnosis.json`")[2]))
    said_by_kind = {*SIGNALS, *SCOPES, "other"}  # `signal → scope` and `role →`

    def keys(value):
        if isinstance(value, dict):
            yield from value
            for part in value.values():
                yield from keys(part)

    used = set(keys({key: part for key, part in result.items() if key != "about"}))
    assert used - named - said_by_kind - set(FocusConfig.model_fields) == set()


def test_another_reference(tmp_path, model_folder):
    other = tmp_path / "other"
    _copy(model_folder, other)
    policy, _ = load(ModelConfig(name=str(other)))
    with torch.no_grad():
        policy.causal_lm.get_input_embeddings().weight.mul_(1.5)
    policy.causal_lm.save_pretrained(other)
    request = Request(transcripts=EXAMPLE, model=str(model_folder), reference=str(other), gradient_groups=0)
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    assert result["about"]["reference"] == str(other) and result["gradient"] is None
    assert result["correlations"]["shift"]["action"]["rho"] is not None


def test_a_reference_that_reads_other_tokens_is_refused(model_folder):
    """Its ids mean other texts, so every figure of it would be nonsense."""
    request = Request(transcripts=EXAMPLE, model=str(model_folder), reference="tiny")
    with pytest.raises(ModelError, match="reference tiny has another vocabulary than"):
        subject_of(request, CPU, SILENT)


def test_a_reference_without_embeddings_for_added_tokens_is_refused(tmp_path, model_folder):
    """Such a token would be looked up behind the end of the reference's table."""
    policy, chat = load(ModelConfig(name=str(model_folder)))
    chat.tokenizer.add_tokens(["<|added|>"])
    policy.causal_lm.resize_token_embeddings(len(chat.tokenizer))
    policy.causal_lm.save_pretrained(tmp_path / "more")
    chat.tokenizer.save_pretrained(tmp_path / "more")
    request = Request(transcripts=EXAMPLE, model=str(tmp_path / "more"), reference=str(model_folder))
    with pytest.raises(ModelError, match=r"has embeddings for \d+ tokens, but .* writes token \d+"):
        subject_of(request, CPU, SILENT)


@pytest.mark.parametrize("short", ["model", "reference"])
def test_episodes_must_fit_both_models(short, request_of, tmp_path, model_folder):
    """Positions that a model never learnt would give an index error, or energies that mean nothing."""
    _copy(model_folder, tmp_path / "short")
    path = tmp_path / "short" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 500}))
    request = request_of(reference=str(model_folder))
    request = replace(request, **{short: str(tmp_path / "short")})
    with pytest.raises(ConfigError, match=r"may have 520 tokens.* reads at most 500"):
        diagnose(request, tmp_path / "out", progress=SILENT)
    assert not (tmp_path / "out").exists()


def test_what_was_computed_before_the_gradient_failed_is_kept(tmp_path, model_folder, monkeypatch):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("nine times the parameters")

    monkeypatch.setattr("actfocus.diagnosis.diagnose.gradient_share", fail)
    request = Request(transcripts=EXAMPLE, model=str(model_folder))
    with pytest.raises(torch.OutOfMemoryError):
        diagnose(request, tmp_path / "out", progress=SILENT)
    saved = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    check_result(saved, tmp_path / "out")
    assert saved["gradient"] is None and saved["groups"] == 12


def test_an_existing_folder_is_refused_before_the_work(tmp_path, model_folder):
    request = Request(transcripts=EXAMPLE, model=str(model_folder))
    with pytest.raises(RunError, match="exists already"):
        diagnose(request, tmp_path, progress=SILENT)
    assert tmp_path.is_dir()


def test_a_conversation_must_fit_the_reference_too(tmp_path, model_folder):
    short = tmp_path / "short"
    _copy(model_folder, short)
    shape = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(shape | {"max_position_embeddings": 40}))
    request = Request(transcripts=EXAMPLE, model=str(model_folder), reference=str(short))
    with pytest.raises(ConfigError, match=r"line 1: .* reads at most 40"):
        subject_of(request, CPU, SILENT)


def test_groups_of_one_are_left_out(tmp_path, model_folder):
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(lines[:9]), encoding="utf-8")
    request = Request(transcripts=path, model=str(model_folder))
    result = diagnose(request, tmp_path / "out", progress=SILENT)
    assert (result["groups"], result["episodes"]) == (2, 8)
    assert any("single episode (1)" in note for note in result["notes"])
    path.write_text("\n".join(lines[::4]), encoding="utf-8")
    with pytest.raises(ConfigError, match="one episode only"):
        diagnose(request, tmp_path / "other", progress=SILENT)
    assert not (tmp_path / "other").exists()
