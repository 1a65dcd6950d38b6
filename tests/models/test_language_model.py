"""Trunk and head, promises:

1. The score of token t is made of the model's own logits at t − 1: neither those at t nor those at t − 2.
2. What stands on the right, padding included, changes nothing.
3. Architectures that scale or cap their logits are followed; one that does something unknown is refused.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
)

from actfocus.errors import ModelError
from actfocus.models import language_model
from actfocus.models.language_model import LanguageModel, predecessors
from tests.fixtures import lively_weights, random_ids

V = 61
SHAPE = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 1}
ARCHITECTURES = {
    "gpt2": GPT2Config(**GPT2, initializer_range=0.3),
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "gemma2": Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0),
    "cohere": CohereConfig(**SHAPE, logit_scale=0.25),
    "cohere2": Cohere2Config(**SHAPE, logit_scale=0.25),
    "granite": GraniteConfig(**SHAPE, logits_scaling=4.0),
}


def random_model(name, seed=0):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(ARCHITECTURES[name])


def by_hand(model, ids_BT, chosen_BT, shift=1):
    """Log-probability, energy and entropy from the model's logits `shift` positions before each token."""
    logits_BTV = model(ids_BT, use_cache=False).logits.double()
    rows = []
    for b, t in chosen_BT.nonzero().tolist():
        f = logits_BTV[b, t - shift]
        z = torch.log(torch.exp(f - f.max()).sum()) + f.max()
        p = torch.exp(f - z)
        rows.append((f[ids_BT[b, t]] - z, -z, -(p * (f - z)).sum()))
    return torch.tensor(rows, dtype=torch.float64).T


def some_chosen(shape, seed=3):
    chosen_BT = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    chosen_BT[:, :2] = False
    chosen_BT[0, -1] = True
    return chosen_BT


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_scores_are_those_of_the_models_own_logits_one_position_earlier(name):
    model = random_model(name)
    ids_BT = random_ids(V, 3, 17)
    chosen_BT = some_chosen(ids_BT.shape)
    found = torch.stack([*LanguageModel(model).token_scores(ids_BT, chosen_BT)]).double()
    torch.testing.assert_close(found, by_hand(model, ids_BT, chosen_BT), rtol=2e-5, atol=2e-5)
    for shift in (0, 2):
        wrong = by_hand(model, ids_BT, chosen_BT, shift)
        assert ((found - wrong).abs() > 1e-3).float().mean(1).min() > 0.9, f"no worse with shift {shift}"


@torch.no_grad()
def test_the_first_prediction_can_be_scored_and_the_first_token_can_not(tiny):
    ids_BT = random_ids(300, 2, 5)
    chosen_BT = torch.zeros(2, 5, dtype=torch.bool)
    chosen_BT[:, 1] = True
    found = tiny.token_scores(ids_BT, chosen_BT).logprobs.double()
    torch.testing.assert_close(found, by_hand(tiny.model, ids_BT, chosen_BT)[0], rtol=1e-5, atol=1e-5)
    chosen_BT[1, 0] = True
    with pytest.raises(ValueError, match="first token of a row"):
        tiny.token_scores(ids_BT, chosen_BT)


def test_predecessors_are_the_states_one_position_earlier():
    hidden_BTD = torch.arange(8.0).reshape(2, 4, 1)
    chosen_BT = torch.tensor([[False, True, False, True], [False, False, True, False]])
    assert predecessors(hidden_BTD, chosen_BT).flatten().tolist() == [0, 2, 5]


@torch.no_grad()
def test_no_chosen_token_is_no_score(tiny):
    chosen_BT = torch.zeros(2, 5, dtype=torch.bool)
    assert [len(column) for column in tiny.token_scores(random_ids(300, 2, 5), chosen_BT)] == [0, 0, 0]


@torch.no_grad()
def test_what_stands_on_the_right_changes_nothing(lively):
    ids_BT = random_ids(300, 3, 20)
    chosen_BT = some_chosen(ids_BT.shape)
    scores = lively.token_scores(ids_BT, chosen_BT)
    for filling in (0, 299):
        padded_BT = torch.cat([ids_BT, torch.full((3, 9), filling)], dim=1)
        wider_BT = torch.cat([chosen_BT, torch.zeros(3, 9, dtype=torch.bool)], dim=1)
        for found, expected in zip(lively.token_scores(padded_BT, wider_BT), scores, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    alone = [lively.token_scores(ids_BT[[row]], chosen_BT[[row]]).logprobs for row in range(3)]
    torch.testing.assert_close(torch.cat(alone), scores.logprobs, rtol=1e-5, atol=1e-5)


def test_chunks_change_neither_scores_nor_gradients(monkeypatch):
    ids_BT = random_ids(V, 3, 17)
    chosen_BT = some_chosen(ids_BT.shape)
    results = []
    for chunk in (2048, 4):
        monkeypatch.setattr(language_model, "LOGIT_CHUNK", chunk)
        model = LanguageModel(random_model("gemma2"))
        scores = model.token_scores(ids_BT, chosen_BT)
        (scores.logprobs.sum() + scores.entropy.sum()).backward()
        results.append([*scores, *(p.grad for p in model.parameters())])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-5)


def test_the_model_is_in_evaluation_mode():
    config = GPT2Config(**GPT2, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    model = LanguageModel(AutoModelForCausalLM.from_config(config).train())
    ids_BT, chosen_BT = random_ids(V, 2, 9), some_chosen((2, 9))
    first, second = (model.token_scores(ids_BT, chosen_BT).logprobs for _ in range(2))
    assert torch.equal(first, second)


class Shouting(LlamaForCausalLM):
    """Changes its logits in a way that no configuration tells."""

    change = staticmethod(lambda logits: logits)

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        return SimpleNamespace(logits=self.change(output.logits))


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits * 1.1,
        lambda logits: logits / 4,
        lambda logits: torch.tanh(logits / 3) * 3,
        lambda logits: logits + torch.arange(V) / V,
        lambda logits: logits.log_softmax(-1),
        lambda logits: logits.roll(1, dims=1),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_unknown_changes_of_the_logits_are_refused(change, precision):
    torch.manual_seed(0)
    model = Shouting(ARCHITECTURES["llama"])
    LanguageModel(model, precision=precision)
    model.change = change
    with pytest.raises(ModelError, match=r"^Shouting changes its logits .* not supported$"):
        LanguageModel(model, precision=precision)


def test_broken_weights_are_refused():
    model = random_model("llama")
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    with pytest.raises(ModelError, match=r"not finite: its weights are damaged$"):
        LanguageModel(model)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_bfloat16_runs_close_to_float32(name):
    model = random_model(name)
    ids_BT = random_ids(V, 2, 12)
    chosen_BT = some_chosen(ids_BT.shape)
    exact = LanguageModel(model).token_scores(ids_BT, chosen_BT)
    rough = LanguageModel(model, precision="bfloat16").token_scores(ids_BT, chosen_BT)
    assert all(column.dtype == torch.float32 for column in rough)
    assert not torch.equal(rough.logprobs, exact.logprobs)
    assert (rough.logprobs - exact.logprobs).abs().mean() < 0.1 * exact.logprobs.std()


def test_bfloat16_trains_float32_weights():
    model = LanguageModel(random_model("qwen2"), precision="bfloat16")
    ids_BT, chosen_BT = random_ids(V, 2, 12), some_chosen((2, 12))
    model.token_scores(ids_BT, chosen_BT).logprobs.sum().backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_tests_model_depends_on_its_whole_context():
    """Otherwise the tests of alignment could not tell one position from another."""
    model = LanguageModel(lively_weights())
    ids_BT = random_ids(300, 1, 12)
    other_BT = ids_BT.clone()
    other_BT[0, 0] += 1
    with torch.no_grad():
        moved = (model.hidden(ids_BT) - model.hidden(other_BT)).abs().amax(-1)[0]
    assert (moved > 1e-2).all()
