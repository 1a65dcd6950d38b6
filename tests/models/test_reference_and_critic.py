"""Adapters, the frozen reference and the critic, promises:

1. The reference is the model as it was before training, whatever the policy has become: with LoRA the base
   model under the adapters, else a copy.
2. With LoRA the adapters alone are trained, and the policy starts equal to the base.
3. The critic's value for token t starts at 0 and depends on the tokens before t alone.
"""

import pytest
import torch

from actfocus.config import ModelConfig
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.loading import load
from actfocus.models.reference import AdaptersOff, FrozenCopy, make_reference
from tests.fixtures import fresh_tokenizer, lively_weights, random_ids

IDS_BT = random_ids(300, 3, 14)
CHOSEN_BT = torch.rand(IDS_BT.shape, generator=torch.Generator().manual_seed(0)) < 0.5
CHOSEN_BT[:, 0] = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lively")
    lively_weights().save_pretrained(path)
    fresh_tokenizer().save_pretrained(path)
    return path


def load_lora(folder, seed=0):
    return load(ModelConfig(name=str(folder), lora_rank=4, init_seed=seed))[0]


def disturb(model):
    """Change everything that is trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)


def scores(model):
    with torch.no_grad():
        return model.token_scores(IDS_BT, CHOSEN_BT)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_reference_under_adapters_is_the_base_model(folder):
    base = LanguageModel(lively_weights())
    copied = FrozenCopy(base)
    policy = load_lora(folder)
    reference = make_reference(policy)
    assert isinstance(reference, AdaptersOff)
    before = scores(base)
    assert same(scores(policy), before)
    assert same(reference.token_scores(IDS_BT, CHOSEN_BT), before)
    disturb(policy)
    assert (scores(policy).logprobs - before.logprobs).abs().max() > 0.1
    assert same(reference.token_scores(IDS_BT, CHOSEN_BT), before)
    assert same(copied.token_scores(IDS_BT, CHOSEN_BT), before)
    changed = scores(policy)
    reference.token_scores(IDS_BT, CHOSEN_BT)
    assert same(scores(policy), changed), "the adapters are on again"


def test_the_reference_of_a_plain_model_is_a_copy(folder):
    policy = load(ModelConfig(name=str(folder)))[0]
    reference = make_reference(policy)
    assert isinstance(reference, FrozenCopy)
    before = scores(policy)
    disturb(policy)
    assert not same(scores(policy), before)
    assert same(reference.token_scores(IDS_BT, CHOSEN_BT), before)
    assert all(parameter.requires_grad for parameter in policy.model.parameters())


def test_a_reference_needs_no_gradient(folder):
    for policy in (load(ModelConfig(name=str(folder)))[0], load_lora(folder)):
        found = make_reference(policy).token_scores(IDS_BT, CHOSEN_BT)
        assert not any(column.requires_grad for column in found)


def test_only_the_adapters_are_trained_also_after_a_reference_pass(folder):
    policy = load_lora(folder)
    names = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name for name in names)
    assert not any("lm_head" in name for name in names)
    AdaptersOff(policy).token_scores(IDS_BT, CHOSEN_BT)
    assert [name for name, p in policy.model.named_parameters() if p.requires_grad] == names
    assert len(policy.parameters()) == len(names)
    disturb(policy)
    policy.token_scores(IDS_BT, CHOSEN_BT).logprobs.sum().backward()
    touched = [name for name, p in policy.model.named_parameters() if p.grad is not None and p.grad.any()]
    assert touched == names


def test_new_adapters_depend_on_their_seed_alone(folder):
    def first_adapter(seed, global_seed):
        torch.manual_seed(global_seed)
        policy = load_lora(folder, seed)
        following = torch.rand(1)
        return policy.parameters()[0].detach(), following

    (a, after_a), (b, after_b) = first_adapter(0, 1), first_adapter(0, 2)
    assert torch.equal(a, b)
    assert not torch.equal(first_adapter(1, 1)[0], a)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after_a) and not torch.equal(after_a, after_b)


@pytest.mark.parametrize("lora", [False, True])
def test_the_critic_starts_at_zero_and_looks_back_only(folder, lora):
    policy = load_lora(folder) if lora else LanguageModel(lively_weights())
    critic = Critic(policy)
    chosen_BT = torch.ones(1, 9, dtype=torch.bool)
    chosen_BT[:, 0] = False
    ids_BT = IDS_BT[:1, :9]
    assert critic(ids_BT, chosen_BT).tolist() == [0.0] * 8
    with torch.no_grad():
        critic.value.weight.normal_(generator=torch.Generator().manual_seed(0))
        critic.value.bias.fill_(0.5)
        values = critic(ids_BT, chosen_BT)
        for t in range(9):
            changed_BT = ids_BT.clone()
            changed_BT[0, t] += 1
            moved = (critic(changed_BT, chosen_BT) - values).abs()
            # Value k is that of token k + 1: it may read the tokens 0 … k.
            assert moved[:t].eq(0).all(), f"a value before token {t + 1} reads token {t}"
            assert moved[t:].gt(1e-4).all(), f"a value after token {t} does not read it"


def test_the_critic_is_a_copy_with_its_own_training(folder):
    plain, lora = LanguageModel(lively_weights()), load_lora(folder)
    before = scores(lora)
    assert len(Critic(plain).trained_parameters()) == len(list(plain.trunk.parameters())) + 2
    critic = Critic(lora)
    names = [name for name, p in critic.named_parameters() if p.requires_grad]
    assert names[-2:] == ["value.weight", "value.bias"]
    assert all("lora_" in name for name in names[:-2]) and len(names) == len(lora.parameters()) + 2
    critic(IDS_BT, CHOSEN_BT).sum().backward()
    assert all(parameter.grad is None for parameter in lora.model.parameters())
    with torch.no_grad():
        for parameter in critic.trained_parameters():
            parameter += 1
    assert same(scores(lora), before)


def test_the_critic_runs_in_bfloat16_with_values_in_float32():
    critic = Critic(LanguageModel(lively_weights(), precision="bfloat16"))
    with torch.no_grad():
        critic.value.weight.fill_(0.1)
    values = critic(IDS_BT, CHOSEN_BT)
    assert values.dtype == torch.float32 and values.isfinite().all() and len(values) == CHOSEN_BT.sum()
