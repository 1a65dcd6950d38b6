"""`examples/trl_grpo.py`: success rises on start states that training never sees."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "trl_grpo.py"


@pytest.mark.slow
def test_success_rises() -> None:
    result = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    figures = r"success {}: ([.\d]+), 95 % interval ([.\d]+) to ([.\d]+)"
    before, after = (re.search(figures.format(when), result.stdout) for when in ("before", "after"))
    assert before and after, result.stdout
    assert float(after[1]) > float(before[1]) + 0.05
