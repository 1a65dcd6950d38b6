"""Signals of given tokens, promises:

1. Energy and entropy come from the reference's logits that *predict* the token, nll from the policy's or the
   record, shift from both: as a pass over the whole row and plain indexing give them. A shift by one is seen.
2. A policy that is its own reference has shift 0; adapters are off in the reference of a LoRA run.
3. The check moves energy by the constant and entropy not at all, at action tokens alone.
"""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from actfocus.diagnosis.agent import Agent
from actfocus.diagnosis.signals import signal_check, token_signals
from actfocus.errors import NonFiniteError
from actfocus.models.language_model import LanguageModel
from actfocus.report.progress import SilentProgress
from tests import oracle
from tests.small import small_model


def signals_of(agent, batch, *, recorded=False, micro_batch=4):
    return token_signals(agent, batch, recorded=recorded, micro_batch=micro_batch, progress=SilentProgress())


def plain(batch, policy, reference):
    """Per sampled token (b, t): the four signals, from whole rows of logits and plain sums."""
    found = {}
    for b in range(len(batch)):
        ids = batch.ids_BT[b, : int(batch.lengths_B[b])]
        with torch.no_grad():
            rows = [m.causal_lm(input_ids=ids[None]).logits[0].tolist() for m in (policy, reference)]
        for t in range(len(ids)):
            if batch.roles_BT[b, t] == 0:
                continue
            old, frozen = ([v - math.log(sum(map(math.exp, row[t - 1]))) for v in row[t - 1]] for row in rows)
            found[b, t] = {
                "energy": -math.log(sum(map(math.exp, rows[1][t - 1]))),
                "entropy": -sum(v * math.exp(v) for v in frozen),
                "nll": -old[int(ids[t])],
                "shift": old[int(ids[t])] - frozen[int(ids[t])],
            }
    return found


def check(signals, expected, batch):
    for (b, t), figures in expected.items():
        assert {name: float(s[b, t]) for name, s in signals.items()} == pytest.approx(figures, abs=1e-9)
    for signal_BT in signals.values():
        assert (signal_BT[batch.roles_BT == 0] == 0).all()


@pytest.mark.parametrize("micro_batch", [1, 5, 100])
def test_agree_with_plain_indexing(small, small_episodes, micro_batch):
    reference = small_model(seed=1)
    agent = Agent(small, None, reference, trained=True)
    expected = plain(small_episodes, small, reference)
    signals = signals_of(agent, small_episodes, micro_batch=micro_batch)
    check(signals, expected, small_episodes)
    for step in (1, -1):
        late = {name: signal_BT.roll(step, 1) for name, signal_BT in signals.items()}
        with pytest.raises(AssertionError):
            check(late, expected, small_episodes)


def test_recorded_log_probabilities_are_taken(small, small_episodes):
    signals = signals_of(Agent(small, None), small_episodes, recorded=True)
    sampled = small_episodes.sampled_BT
    recorded_N = small_episodes.sampler_logprobs_BT[sampled].double()
    assert torch.equal(signals["nll"][sampled], -recorded_N)
    own = signals_of(Agent(small, None), small_episodes)
    assert torch.allclose(signals["shift"][sampled], recorded_N + own["nll"][sampled])


def test_a_policy_that_is_its_own_reference_has_no_shift(small, small_episodes):
    signals = signals_of(Agent(small, None), small_episodes)
    assert (signals["shift"] == 0).all()
    check(signals, plain(small_episodes, small, small), small_episodes)


def test_adapters_are_off_in_the_reference(small, small_episodes):
    base = small_model()
    lora = get_peft_model(
        small.model, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    )
    agent = Agent(LanguageModel(lora.double()), None, trained=True)
    signals = signals_of(agent, small_episodes)
    check(signals, plain(small_episodes, agent.policy, base), small_episodes)
    assert signals["shift"].abs().max() > 1e-3


def test_a_broken_reference_is_refused(small, small_episodes):
    with torch.no_grad():
        small.parameters()[0].fill_(math.nan)
    with pytest.raises(NonFiniteError, match="energy"):
        signals_of(Agent(small, None), small_episodes)


def test_the_check_of_the_signal(small, small_episodes):
    agent = Agent(small, None)
    signals = signals_of(agent, small_episodes)
    found = signal_check(agent, small_episodes, signals)
    is_action = small_episodes.roles_BT == 2
    energy, entropy = signals["energy"][is_action].tolist(), signals["entropy"][is_action].tolist()
    assert found["energy_moved"] == pytest.approx(found["constant"])
    assert found["entropy_moved"] < 1e-12
    assert found["energy_entropy_rho"] == pytest.approx(oracle.spearman(energy, entropy), abs=1e-9)
    mean = sum(energy) / len(energy)
    spread = math.sqrt(sum((e - mean) ** 2 for e in energy) / len(energy))
    assert found["energy_sd"] == pytest.approx(spread)
    assert found["energy_moved_in_sd"] == pytest.approx(found["constant"] / spread)
    assert found["action_tokens"] == len(energy)


def test_the_check_without_action_tokens(small, small_episodes):
    small_episodes.roles_BT[small_episodes.roles_BT == 2] = 1
    agent = Agent(small, None)
    found = signal_check(agent, small_episodes, signals_of(agent, small_episodes))
    assert math.isnan(found["energy_moved"]) and math.isnan(found["energy_entropy_rho"])
