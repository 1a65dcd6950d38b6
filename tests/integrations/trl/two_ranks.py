"""One rank of `test_two_processes.py`: one update on eight lines, shared among the ranks."""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from safetensors.torch import save_file

from actfocus.integrations.trl import FocusConfig
from tests.integrations.trl.scripted import Recorder, trainer


def update(out: Path, per_device: int) -> tuple[dict, dict, int]:
    """Gradient of one update, and what was logged of it."""
    made = trainer(
        out,
        focus=FocusConfig(alpha=0.1, beta=0.5, other_weight=0.3),
        per_device_train_batch_size=per_device,
        beta=0.1,
    )
    kept = Recorder(made)
    made.train()
    # DDP hands every rank the mean over ranks; TRL's normaliser has the number of ranks in it.
    return kept.gradients[0], made.state.log_history[0], made.accelerator.num_processes


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    gradients, logged, count = update(folder / "out", per_device=2)
    rank = os.environ["RANK"]
    save_file({name: value.contiguous() for name, value in gradients.items()}, folder / f"{rank}.safetensors")
    figures = {key: value for key, value in logged.items() if key.startswith("focus/")}
    print(json.dumps({"ranks": count, **figures}), flush=True)
    torch.distributed.destroy_process_group()
    os._exit(0)  # a thread of gloo's may outlive Python's own end, and then aborts the process
