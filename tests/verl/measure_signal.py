"""What the signal costs the reference's pass: `python -m tests.verl.measure_signal`, in verl's environment.

On the CPU, one thread, best of several: the head of a Qwen2.5-0.5B (896 × 151,936) and verl's own
log-probabilities of 256 packed tokens, and beside them the energies of those that are actions. The rest of
the model's pass is left out; it would make the share smaller still.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils.torch_functional import logprobs_from_logits

from actfocus.integrations.verl.reference import action_signal

TOKENS, HIDDEN, VOCABULARY = 256, 896, 151_936


def best(work: Callable[[], Any], repeats: int = 7) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    head = torch.randn(VOCABULARY, HIDDEN, generator=draw) * 0.02
    hidden = torch.randn(TOKENS, HIDDEN, generator=draw)
    ids = torch.randint(VOCABULARY, (TOKENS,), generator=draw)
    logits = hidden @ head.T
    plain = best(lambda: logprobs_from_logits(hidden @ head.T, ids))
    print(f"head and log-probabilities: {1000 * plain:.1f} ms for {TOKENS} tokens")
    for share in (0.04, 0.16):
        roles = torch.ones(TOKENS - 1, dtype=torch.int8)
        roles[: round(share * TOKENS)] = 2
        batch = TensorDict(
            {
                "input_ids": torch.nested.as_nested_tensor([ids], layout=torch.jagged),
                "focus_roles": torch.nested.as_nested_tensor([roles], layout=torch.jagged),
            },
            batch_size=1,
        )
        extra = best(lambda batch=batch: action_signal(logits[None], batch, "energy"))
        print(f"energy of {share:.0%} of them: {1000 * extra:.2f} ms more, {extra / plain:.2%}")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
