"""The signal stands where the logits stood that predict an action token, in both of verl's layouts.

The worker as a whole is tested in `test_step_grpo.py`; here the rows are small enough to be written by hand.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from actfocus.integrations.verl.reference import ASKED, SIGNAL, action_signal, make_signal

VOCABULARY = 7
LENGTHS = [(3, 4), (2, 6), (4, 1)]
"""Tokens of prompt and response."""
ROLES = [[3, 2, 2, 3], [1, 1, 0, 2, 3, 2], [0]]
PLACES = {(0, 3), (0, 4), (1, 4), (1, 6)}
"""(row, place of the logits): one before the action token, counted over prompt and response."""


def case() -> tuple[torch.Tensor, TensorDict]:
    """Logits [B, S, V], padded, and the micro-batch."""
    logits = torch.randn(3, 8, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3
    ids = [torch.zeros(prompt + response, dtype=torch.long) for prompt, response in LENGTHS]
    roles = [torch.tensor(row, dtype=torch.int8) for row in ROLES]
    fields = {"input_ids": ids, "focus_roles": roles}
    batch = TensorDict(
        {name: torch.nested.as_nested_tensor(rows, layout=torch.jagged) for name, rows in fields.items()},
        batch_size=3,
    )
    return logits, batch


def expected(logits: torch.Tensor, name: str) -> list[list[float]]:
    found = []
    for row, (prompt, response) in enumerate(LENGTHS):
        found.append([float("nan")] * (prompt + response))
        for place in range(prompt + response):
            if (row, place) in PLACES:
                p = logits[row, place].double().softmax(-1)
                energy = -logits[row, place].double().exp().sum().log()
                found[row][place] = float(energy if name == "energy" else -(p * p.log()).sum())
    return found


@pytest.mark.parametrize("name", ["energy", "entropy"])
@pytest.mark.parametrize("layout", ["padded", "packed", "packed and padded"])
def test_it_stands_before_its_token(name: str, layout: str) -> None:
    logits, batch = case()
    given = logits
    if layout != "padded":
        parts = [logits[row, : sum(lengths)] for row, lengths in enumerate(LENGTHS)]
        tail = [torch.full((5, VOCABULARY), torch.nan)] if layout == "packed and padded" else []
        given = torch.cat([*parts, *tail])[None]
    signal = action_signal(given, batch, name)
    for found, row in zip(signal.unbind(), expected(logits, name), strict=True):
        assert found.tolist() == pytest.approx(row, abs=1e-5, nan_ok=True)


def test_one_row_is_the_same_in_both_layouts() -> None:
    logits, batch = case()
    alone = TensorDict(
        {
            name: torch.nested.as_nested_tensor([batch[name][1]], layout=torch.jagged)
            for name in sorted(batch.keys())
        },
        batch_size=1,
    )
    signal = action_signal(logits[1:2], alone, "energy")
    assert signal.values().tolist() == pytest.approx(expected(logits, "energy")[1], abs=1e-5, nan_ok=True)


def test_half_precision_is_scored_in_float32() -> None:
    logits, batch = case()
    half = logits.bfloat16()
    assert torch.equal(
        action_signal(half, batch, "energy").values().nan_to_num(),
        action_signal(half.float(), batch, "energy").values().nan_to_num(),
    )


class Engine:
    """An engine that divides its logits in place, as verl's does where the temperature is not 1."""

    def prepare_model_outputs(
        self, output: Any, output_args: Any, micro_batch: Any, logits_processor_func: Any
    ) -> dict[str, Any]:
        output.logits.div_(0.5)
        return {"log_probs": output_args}


def test_an_engine_makes_it_where_it_is_asked_alone() -> None:
    engine = Engine()
    make_signal(engine)
    logits, batch = case()
    arguments = {"output_args": "kept", "micro_batch": batch, "logits_processor_func": None}
    output = SimpleNamespace(logits=logits.clone())
    assert engine.prepare_model_outputs(output=output, **arguments) == {"log_probs": "kept"}
    tu.assign_non_tensor(batch, **{ASKED: "energy"})
    output = SimpleNamespace(logits=logits.clone())
    outputs = engine.prepare_model_outputs(output=output, **arguments)
    assert outputs.keys() == {"log_probs", SIGNAL}
    assert torch.equal(
        outputs[SIGNAL].values().nan_to_num(), action_signal(logits, batch, "energy").values().nan_to_num()
    )
