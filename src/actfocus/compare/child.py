"""A run's own process: `actfocus` that ends when the comparison ends, however that ended.

The comparison holds the other end of stdin and never writes. It closes it to stop the run, and the system
closes it if the comparison is killed: no run goes on alone, and its lock is free for the next comparison.
"""

import os
import signal
import sys
import threading
import time

GRACE = 10.0
"""Seconds in which an interrupted run may end by itself. It loses no more than a kill would take."""


def main() -> int:
    """Run `actfocus` with this process's arguments."""
    # A shell without job control starts background commands with Control-C ignored; children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from actfocus.cli import main as actfocus

        return actfocus(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock would stop the interpreter from ending
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    signal.pthread_kill(main_thread, signal.SIGINT)  # also wakes it where it waits
    time.sleep(GRACE)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
