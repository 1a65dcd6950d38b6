"""The passes before the first update: what policy, critic and reference say of the sampled tokens.

Legend: B trajectories, T tokens, N sampled tokens, F figures per token.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from actfocus.config import Config
from actfocus.distributed import Processes
from actfocus.focus import TokenScores, token_signal
from actfocus.models.critic import Critic
from actfocus.models.language_model import LanguageModel
from actfocus.models.reference import Reference
from actfocus.rollout.batch import Batch

Pass = Callable[[torch.Tensor, torch.Tensor], Sequence[torch.Tensor]]
"""(ids [B, T], sampled [B, T]) → F tensors [N], the figures of the sampled tokens in row-major order."""


def micro_batches(batch: Batch, rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """Split rows into micro-batches of alike length, longest first: little padding, early out-of-memory."""
    ordered = sorted(rows, key=lambda row: -int(batch.lengths_B[row]))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


class Scorer:
    """Fills the policy's, the critic's and the reference's figures and `signal_BT` of a batch.

    Each rank scores its share of the rows and the shares are added up, so that afterwards every rank holds
    the whole batch: all statistics over it are global without further ado.
    """

    def __init__(
        self,
        config: Config,
        processes: Processes,
        policy: LanguageModel,
        critic: Critic | None,
        reference: Reference | None,
    ) -> None:
        self._config, self._processes = config, processes
        self._policy, self._critic, self._reference = policy, critic, reference

    @torch.no_grad()
    def score(self, batch: Batch) -> None:
        """Run every pass that the configuration needs, each once."""
        policy = TokenScores(*self._pass(batch, self._policy.token_scores))
        batch.old_logprobs_BT, batch.entropy_BT = policy.logprobs, policy.entropy
        if self._critic is not None:
            critic = self._critic
            values = self._pass(batch, lambda ids, chosen: (critic(ids, chosen),))
            batch.values_BT = values[0]
        reference = None
        if self._reference is not None:  # one pass, which KL, signal and the metrics share
            reference = TokenScores(*self._pass(batch, self._reference.token_scores))
            batch.energy_BT, batch.ref_logprobs_BT = reference.energy, reference.logprobs
        # Without beta no weight needs it, but where it costs nothing the records and the report have it.
        if self._config.focus.beta > 0 or reference is not None:
            batch.signal_BT = token_signal(self._config.focus.signal, batch.old_logprobs_BT, reference)

    def _pass(self, batch: Batch, run: Pass) -> torch.Tensor:
        """Figures [F, B, T] of the sampled tokens, 0 elsewhere, from one pass over all rows."""
        sampled_BT = batch.sampled_BT
        figures_FBT = torch.zeros(0)
        own_rows = self._processes.share(range(len(batch)))
        # A rank without rows scores one all the same, to know the shape of what is added up.
        for rows in micro_batches(batch, own_rows or [0], self._config.optimizer.micro_batch):
            part = batch.rows(rows)
            longest = part.ids_BT.shape[1]
            sampled_bt = sampled_BT[rows, :longest]
            figures_FN = torch.stack([*run(part.ids_BT, sampled_bt)])
            if not len(figures_FBT):
                figures_FBT = figures_FN.new_zeros(len(figures_FN), *sampled_BT.shape)
            if not own_rows:
                break
            figures_Fbt = figures_FN.new_zeros(len(figures_FN), *sampled_bt.shape)
            figures_Fbt[:, sampled_bt] = figures_FN
            figures_FBT[:, rows, :longest] = figures_Fbt
        return self._processes.sum(figures_FBT)
