"""Two processes make the update that one makes: gradients agree to 1e-6 of their norm, on both ranks.

The ranks hold different numbers of action tokens, so the statistics of the energy and Σw are global or wrong.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integrations.trl.scripted import ACTION, line
from tests.integrations.trl.two_ranks import update
from tests.training.test_distributed import launch


def test_two_ranks_make_the_update_of_one(tmp_path: Path) -> None:
    said = launch("tests.integrations.trl.two_ranks", str(tmp_path))
    one, logged, count = update(tmp_path / "one", per_device=4)
    assert count == 1 and [words.pop("ranks") for words in said] == [2, 2]
    gradient = torch.cat([value.flatten() for value in one.values()])
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        difference = torch.cat([found[name].flatten() for name in one]) - gradient
        assert difference.norm() <= 1e-6 * gradient.norm()
    assert gradient.norm() > 1
    for words in said[:1]:  # the main process logs
        assert words == pytest.approx({key: logged[key] for key in words}, rel=1e-6)


def test_the_ranks_hold_different_numbers_of_actions() -> None:
    counts = [sum(line(number).roles.count(ACTION) for number in half) for half in (range(4), range(4, 8))]
    assert counts[0] != counts[1]
