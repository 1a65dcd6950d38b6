"""What a script prints, wherever it runs."""

import os
import subprocess
import sys


def printed_in_every_process(script: str) -> str:
    """The script's output; fails where another process, with another order of sets, prints something else."""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    (output,) = outputs
    return output.decode().replace("\r", "")
