"""Weighted advantages under verl's own loss are the objective of the method.

Promises: `ppo_loss` of verl (its policy loss, KL and entropy terms, token-mean) on the advantages of `weigh`
equals our `policy_loss` on the plain ones to 1e-6, in value and gradient, however the mini-batch is split
over micro-batches and ranks; KL and entropy keep weight 1; (1, 0) changes no bit.
"""

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import agg_loss, get_policy_loss_fn
from verl.trainer.ppo.core_algos import kl_penalty as verl_kl
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss

from actfocus.config import FocusConfig
from actfocus.focus import policy_loss, token_weights
from actfocus.integrations.verl.settings import LOSS_MODES
from actfocus.integrations.verl.weighting import weigh
from tests.verl.config import composed

ROWS, WIDTH, PROMPT = 8, 13, 3
MINI_BATCHES = [[0, 1, 4, 5], [2, 3, 6, 7]]


class Case:
    """A ragged batch with tokens of every role, and log-probabilities with gradient."""

    def __init__(self, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(6, WIDTH + 1, (ROWS,), generator=draw)
        self.roles = torch.randint(0, 4, (ROWS, WIDTH), generator=draw).to(torch.int8)
        inside = torch.arange(WIDTH) < self.lengths[:, None]
        self.roles[~inside] = 0
        self.mask = self.roles != 0
        self.advantages = torch.randn(ROWS, WIDTH, generator=draw) * self.mask
        self.signal = torch.where(self.roles == 2, torch.randn(ROWS, WIDTH, generator=draw), torch.nan)
        self.old = -torch.rand(ROWS, WIDTH, generator=draw)
        self.ref = -torch.rand(ROWS, WIDTH, generator=draw)
        self.entropy = torch.rand(ROWS, WIDTH, generator=draw)
        # Within verl's second clip of 3, which the method has not.
        self.new = (self.old + 0.4 * torch.randn(ROWS, WIDTH, generator=draw)).clamp(
            self.old - 1, self.old + 1
        )
        self.new = self.new.detach().requires_grad_()

    def nested(self, padded: torch.Tensor, rows: list[int]) -> torch.Tensor:
        parts = [padded[row, : self.lengths[row]] for row in rows]
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    def micro_batch(self, rows: list[int], advantages: torch.Tensor, dp_size: int, tokens: int) -> TensorDict:
        fields = {
            "response_mask": self.mask.long(),
            "old_log_probs": self.old,
            "advantages": advantages,
            "ref_log_prob": self.ref,
            "responses": torch.zeros(ROWS, WIDTH, dtype=torch.long),
        }
        data = TensorDict(
            {name: self.nested(value, rows) for name, value in fields.items()}, batch_size=len(rows)
        )
        data["prompts"] = torch.nested.as_nested_tensor(
            [torch.zeros(PROMPT, dtype=torch.long) for _ in rows], layout=torch.jagged
        )
        tu.assign_non_tensor(data, dp_size=dp_size, batch_num_tokens=tokens, global_batch_size=ROWS // 2)
        return data

    def whole(self, responses: torch.Tensor, rows: list[int]) -> torch.Tensor:
        """verl's layout of model outputs: prompt and response, one place before the token."""
        parts = []
        for row in rows:
            length = self.lengths[row]
            head, tail = torch.zeros(PROMPT - 1), torch.zeros(1)
            parts.append(torch.cat([head, responses[row, :length], tail]))
        return torch.cat(parts)


def actor_config(**changes: Any) -> Any:
    config = composed(
        "actor_rollout_ref.actor.clip_ratio_low=0.2",
        "actor_rollout_ref.actor.clip_ratio_high=0.28",
        *(f"actor_rollout_ref.actor.{name}={value}" for name, value in changes.items()),
    )
    return omega_conf_to_dataclass(config.actor_rollout_ref.actor)


def verl_loss(
    case: Case, rows: list[int], advantages: torch.Tensor, splits: list[list[list[int]]], **changes: Any
):
    """The loss of one mini-batch that verl's ranks (each a list of micro-batches) average."""
    config = actor_config(**changes)
    tokens = int(case.mask[rows].sum())
    total: Any = 0.0
    for micro_batches in splits:
        for part in micro_batches:
            data = case.micro_batch(part, advantages, len(splits), tokens)
            output = {"log_probs": case.whole(case.new, part)}
            if config.entropy_coeff:
                output["entropy"] = case.whole(case.entropy, part)
            loss, _ = ppo_loss(config, output, data)
            total = total + loss / len(splits)  # gradients are averaged over ranks
    return total


def weighed(case: Case, focus: FocusConfig):
    return weigh(case.advantages, case.roles, case.signal, case.mask.long(), MINI_BATCHES, focus)


SPLITS = {
    "whole": lambda rows: [[rows]],
    "micro": lambda rows: [[rows[:1], rows[1:]]],
    "ranks": lambda rows: [[rows[:2]], [rows[2:3], rows[3:]]],
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("focus", [FocusConfig(), FocusConfig(alpha=0, beta=1.5, other_weight=0.7)], ids=str)
def test_equals_our_loss(split: str, focus: FocusConfig) -> None:
    case = Case()
    result = weighed(case, focus)
    weights = token_weights(
        case.roles, case.signal, alpha=focus.alpha, beta=focus.beta, other_weight=focus.other_weight
    )
    assert torch.equal(result.weights_BR, weights)
    for rows in MINI_BATCHES:
        theirs = verl_loss(case, rows, result.advantages_BR, SPLITS[split](rows), entropy_coeff=0.0)
        (their_gradient,) = torch.autograd.grad(theirs, case.new)
        ours, _ = policy_loss(
            case.new[rows], case.old[rows], case.advantages[rows], weights[rows], clip_low=0.2, clip_high=0.28
        )
        (our_gradient,) = torch.autograd.grad(ours, case.new)
        assert theirs.item() == pytest.approx(ours.item(), abs=1e-6)
        assert (their_gradient - our_gradient).abs().max() < 1e-6
        assert abs(ours.item()) > 1e-2 and our_gradient.abs().max() > 1e-2


@pytest.mark.parametrize("wrong", ["shifted", "inverted"])
def test_wrong_roles_give_another_loss(wrong: str) -> None:
    case, focus = Case(), FocusConfig(beta=0)
    table = {
        "shifted": case.roles.roll(1, 1),
        "inverted": torch.tensor([0, 2, 1, 3])[case.roles.long()].to(torch.int8),
    }
    rows = MINI_BATCHES[0]
    right = weigh(case.advantages, case.roles, None, case.mask, MINI_BATCHES, focus).advantages_BR
    mistaken = weigh(case.advantages, table[wrong], None, case.mask, MINI_BATCHES, focus).advantages_BR
    losses = [
        float(verl_loss(case, rows, each, [[rows]], entropy_coeff=0.0).detach()) for each in (right, mistaken)
    ]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_kl_and_entropy_keep_weight_one() -> None:
    """All there is beside the policy term is the same with weights as without, to the bit."""
    case, rows = Case(), MINI_BATCHES[0]
    plain, result = case.advantages, weighed(case, FocusConfig(alpha=0))
    terms = {"entropy_coeff": 0.3, "use_kl_loss": True, "kl_loss_coef": 0.7, "kl_loss_type": "k3"}
    rest = []
    for advantages in (plain, result.advantages_BR):
        with_terms = verl_loss(case, rows, advantages, [[rows]], **terms)
        without = verl_loss(case, rows, advantages, [[rows]], entropy_coeff=0.0)
        rest.append((with_terms - without).detach())
    mask, tokens = case.mask[rows], int(case.mask[rows].sum())
    expected = 0.7 * (verl_kl(case.new, case.ref, "k3")[rows] * mask).sum() / tokens
    expected = expected - 0.3 * (case.entropy[rows] * mask).sum() / tokens
    assert float(rest[0]) == pytest.approx(float(rest[1]), abs=1e-6)
    assert float(rest[0]) == pytest.approx(expected.item(), abs=1e-6)


def test_uniform_changes_no_bit() -> None:
    case = Case()
    result = weighed(case, FocusConfig(alpha=1, beta=0))
    assert torch.equal(result.advantages_BR, case.advantages)


def test_a_mini_batch_without_weight_gives_no_gradient() -> None:
    case = Case()
    roles = case.roles.clone()
    roles[MINI_BATCHES[1]] = (roles[MINI_BATCHES[1]] != 0).to(torch.int8)  # reasoning alone
    result = weigh(case.advantages, roles, case.signal, case.mask, MINI_BATCHES, FocusConfig(alpha=0))
    assert result.metrics["focus/weightless_updates"] == 1
    assert not result.advantages_BR[MINI_BATCHES[1]].any()
    assert result.advantages_BR[MINI_BATCHES[0]].any()


def test_tokens_that_only_the_normaliser_counts() -> None:
    """verl's rejection masks tokens in `response_mask`, but goes on dividing by those of `loss_mask`."""
    case, rows = Case(), MINI_BATCHES[0]
    counted = case.mask.clone()
    rejected = case.roles.clone()
    rejected[:, 4] = 0
    focus = FocusConfig(beta=0)
    result = weigh(case.advantages, rejected, None, counted, MINI_BATCHES, focus)
    case.mask, config = rejected != 0, actor_config(entropy_coeff=0.0)
    data = case.micro_batch(rows, result.advantages_BR, 1, int(counted[rows].sum()))
    theirs, _ = ppo_loss(config, {"log_probs": case.whole(case.new, rows)}, data)
    weights = token_weights(rejected, None, alpha=0.1, beta=0.0)
    ours, _ = policy_loss(
        case.new[rows], case.old[rows], case.advantages[rows], weights[rows], clip_low=0.2, clip_high=0.28
    )
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-6)


@pytest.mark.parametrize("mode", LOSS_MODES)
def test_allowed_losses_are_homogeneous_in_the_advantage(mode: str) -> None:
    """So that w · A weighs the token's term by w; the ones that are refused are not."""
    assert _is_homogeneous(mode)


def test_a_loss_of_one_ratio_per_row_is_not() -> None:
    assert not _is_homogeneous("geo_mean")


def _is_homogeneous(mode: str) -> bool:
    """Whether the loss is the sum of its tokens' own losses, each times its weight."""
    config, case = actor_config(**{"policy_loss.loss_mode": mode}), Case(3)
    config.global_batch_info.update(dp_size=1, batch_num_tokens=int(case.mask.sum()), global_batch_size=ROWS)
    weights = torch.rand(ROWS, WIDTH, generator=torch.Generator().manual_seed(1))

    def gradient(factors: torch.Tensor) -> torch.Tensor:
        loss, _ = get_policy_loss_fn(mode)(
            old_log_prob=case.old,
            log_prob=case.new,
            advantages=case.advantages * factors,
            response_mask=case.mask,
            loss_agg_mode="token-mean",
            config=config,
        )
        return torch.autograd.grad(loss, case.new)[0]

    plain, weighed_gradient = gradient(torch.ones_like(weights)), gradient(weights)
    assert plain.abs().max() > 1e-4
    return bool((weighed_gradient - weights * plain).abs().max() < 1e-6)


def test_token_mean_is_a_sum_divided() -> None:
    values, mask = torch.arange(6.0).view(2, 3), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert float(agg_loss(values, mask, "token-mean", dp_size=2, batch_num_tokens=5)) == pytest.approx(
        4 / 5 * 2
    )
