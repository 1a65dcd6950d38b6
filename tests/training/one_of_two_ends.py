"""What each of two processes runs in `test_distributed.py`: it does something together, and ends.

    python -m tests.training.one_of_two_ends

Prints, as JSON, the names of its threads while it works, and when Python is about to end.
"""

import atexit
import json
from pathlib import Path

from actfocus.distributed import Processes


def threads() -> list[str]:
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def main() -> None:
    during: list[str] = []
    atexit.register(lambda: print(json.dumps([during, threads()])))  # what is registered first runs last
    processes = Processes()
    assert processes.gather([processes.rank]) == [0, 1]
    during += threads()


if __name__ == "__main__":
    main()
