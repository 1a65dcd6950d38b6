"""What the signal costs the reference's pass: `python -m tests.verl.measure_signal`, in verl's environment.

On the CPU, one thread: a model of the size of Qwen2.5-0.5B (its weights drawn at random), one row of tokens,
verl's own log-probabilities of them, and in two of three passes also the energies of those that are actions.
The three take turns, so that what else the machine does hits all alike; the cost is the mean difference to
the pass without, within a round.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import t as student
from tensordict import TensorDict
from transformers import Qwen2Config, Qwen2ForCausalLM
from verl.utils.torch_functional import logprobs_from_logits

from actfocus.integrations.verl.reference import action_signal

TOKENS, VOCABULARY = 256, 151_936
SHARES = (0.04, 0.16)
"""Of the tokens, how many are actions: the range that the paper reports."""


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def action_batch(ids: torch.Tensor, share: float) -> TensorDict:
    roles = torch.ones(TOKENS - 1, dtype=torch.int8)
    roles[: round(share * TOKENS)] = 2
    fields = {"input_ids": ids, "focus_roles": roles}
    nested = {name: torch.nested.as_nested_tensor([row], layout=torch.jagged) for name, row in fields.items()}
    return TensorDict(nested, batch_size=1)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(shape).eval()
    ids = torch.randint(VOCABULARY, (TOKENS,))
    batches = {share: action_batch(ids, share) for share in SHARES}

    def reference_pass(share: float | None) -> None:
        logits = model(input_ids=ids[None], use_cache=False).logits
        if share is not None:
            action_signal(logits, batches[share], "energy")
        logprobs_from_logits(logits[0], ids)

    reference_pass(SHARES[0])
    taken = [[seconds(lambda s=share: reference_pass(s)) for share in (None, *SHARES)] for _ in range(rounds)]
    plain = statistics.mean(row[0] for row in taken)
    print(f"a pass without: {plain:.3f} s on average, {rounds} rounds, torch {torch.__version__}")
    for place, share in enumerate(SHARES, start=1):
        extra = [(row[place] - row[0]) / plain for row in taken]
        half = student.ppf(0.975, rounds - 1) * statistics.stdev(extra) / rounds**0.5
        mean = statistics.mean(extra)
        print(
            f"{share:.0%} actions: {mean:+.2%} of it, 95 % interval {mean - half:+.2%} to {mean + half:+.2%}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    torch.set_grad_enabled(False)
    main(parser.parse_args().rounds)
