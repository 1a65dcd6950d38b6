"""A batch: the trajectories that one step trains on, as padded tensors.

Legend: B trajectories, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch

from actfocus.focus.roles import Role
from actfocus.rollout.trajectory import Trajectory


@dataclass
class Batch:
    """Rows are padded on the right with CONTEXT; index t speaks of token y_t, never of its successor."""

    ids_BT: torch.Tensor
    roles_BT: torch.Tensor
    sampler_logprobs_BT: torch.Tensor
    rewards_BT: torch.Tensor
    """R on the last sampled token of each row."""
    returns_B: torch.Tensor
    groups_B: torch.Tensor
    lengths_B: torch.Tensor

    # Filled in on the way from score to loss; 0 at unsampled tokens.
    old_logprobs_BT: torch.Tensor | None = None
    entropy_BT: torch.Tensor | None = None
    """Of the policy that sampled, in nats."""
    ref_logprobs_BT: torch.Tensor | None = None
    energy_BT: torch.Tensor | None = None
    """Under the reference, if there is one."""
    signal_BT: torch.Tensor | None = None
    values_BT: torch.Tensor | None = None
    value_targets_BT: torch.Tensor | None = None
    advantages_BT: torch.Tensor | None = None
    weights_BT: torch.Tensor | None = None
    ratio_BT: torch.Tensor | None = None
    """π_θ / π_old as the last update on the token found it."""

    def __len__(self) -> int:
        return len(self.ids_BT)

    @property
    def sampled_BT(self) -> torch.Tensor:
        """The tokens that the model sampled."""
        return self.roles_BT != Role.CONTEXT

    def rows(self, index: Sequence[int]) -> "Batch":
        """Some rows, cut to the longest of them."""
        longest = int(self.lengths_B[list(index)].max())
        chosen = {}
        for each in fields(self):
            tensor = getattr(self, each.name)
            if tensor is not None:
                tensor = tensor[list(index)]
                chosen[each.name] = tensor[:, :longest] if tensor.dim() == 2 else tensor
        return replace(self, **chosen)


def collate(trajectories: Sequence[Trajectory], device: torch.device | str = "cpu") -> Batch:
    """Lay trajectories side by side; the return stands on the last *sampled* token of each row."""
    lengths = [len(trajectory.ids) for trajectory in trajectories]
    shape = (len(trajectories), max(lengths))
    ids_BT = torch.zeros(shape, dtype=torch.long)
    roles_BT = torch.full(shape, Role.CONTEXT, dtype=torch.int8)
    logprobs_BT = torch.zeros(shape)
    rewards_BT = torch.zeros(shape)
    for row, (trajectory, length) in enumerate(zip(trajectories, lengths, strict=True)):
        ids_BT[row, :length] = torch.tensor(trajectory.ids)
        roles_BT[row, :length] = torch.tensor(trajectory.roles, dtype=torch.int8)
        logprobs_BT[row, :length] = torch.tensor(trajectory.logprobs)
        sampled = (roles_BT[row] != Role.CONTEXT).nonzero()
        if len(sampled):
            rewards_BT[row, sampled[-1]] = trajectory.total_return
    return Batch(
        ids_BT=ids_BT.to(device),
        roles_BT=roles_BT.to(device),
        sampler_logprobs_BT=logprobs_BT.to(device),
        rewards_BT=rewards_BT.to(device),
        returns_B=torch.tensor([trajectory.total_return for trajectory in trajectories], device=device),
        groups_B=torch.tensor([trajectory.start.group for trajectory in trajectories], device=device),
        lengths_B=torch.tensor(lengths, device=device),
    )


def keep_varied_groups(trajectories: Sequence[Trajectory], count: int) -> list[Trajectory]:
    """The trajectories of the `count` groups whose returns vary most (standard deviation), in order.

    Groups of equal spread are kept in the order in which they were sampled.
    """
    returns: dict[int, list[float]] = {}
    for trajectory in trajectories:
        returns.setdefault(trajectory.start.group, []).append(trajectory.total_return)
    spread = {g: float(torch.tensor(r, dtype=torch.float64).std(correction=0)) for g, r in returns.items()}
    kept = set(sorted(returns, key=lambda group: -spread[group])[:count])
    return [trajectory for trajectory in trajectories if trajectory.start.group in kept]
