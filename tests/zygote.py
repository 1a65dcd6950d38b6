"""Processes that need not import torch and transformers again: each is forked from one that has.

    python -m tests.zygote        what `Zygote` starts; it forks for every line of JSON that it reads

An import takes 8 seconds of a core, most commands less. A child is a process of its own, with the arguments,
folder, environment and streams of a new one, and it ends as one; only its modules are there already.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

ROOT = Path(__file__).parents[1]


class Zygote:
    """Starts processes. It ends with the process that made it, whose end of the pipe is then closed."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.zygote"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def start(
        self, words: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None, text: str = ""
    ) -> "Child":
        """A process of `python -m WORDS`, whose stdin holds the text."""
        return Child(self, words, cwd, dict(env or {}), text)

    def ask(self, **job: Any) -> int:
        """What the zygote answers to one line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@functools.cache
def zygote() -> Zygote:
    """That of this process."""
    return Zygote()


class Child:
    """One process."""

    def __init__(
        self, zygote: Zygote, words: Sequence[str], cwd: Path, env: dict[str, str], text: str
    ) -> None:
        self._zygote, self._folder = zygote, TemporaryDirectory()
        self._files = {name: str(Path(self._folder.name) / name) for name in ("in", "out", "err")}
        Path(self._files["in"]).write_text(text)
        self.pid = zygote.ask(words=list(words), cwd=str(cwd), env=env, files=self._files)

    def wait(self, seconds: int = 300) -> subprocess.CompletedProcess[str]:
        """Its exit code and what it wrote; one that takes longer is killed."""
        code = self._zygote.ask(wait=self.pid, seconds=seconds)
        out, err = (Path(self._files[name]).read_text() for name in ("out", "err"))
        self._folder.cleanup()
        return subprocess.CompletedProcess([], code, out, err)


def _serve(lines: IO[str], answers: IO[str]) -> dict[str, Any] | None:
    """Answer until the lines end; in a child, its job."""
    for line in lines:
        job: dict[str, Any] = json.loads(line)
        if "wait" in job:
            answer = _wait(job["wait"], job["seconds"])
        elif (answer := os.fork()) == 0:
            return job
        answers.write(f"{answer}\n")
        answers.flush()
    return None


def _wait(pid: int, seconds: int) -> int:
    def kill(*_: object) -> None:
        os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.alarm(seconds)
    _, status = os.waitpid(pid, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(status)


def _become(job: dict[str, Any]) -> None:
    """Take the place that a new process would have."""
    for number, (name, mode) in enumerate([("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY)]):
        opened = os.open(job["files"][name], mode | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    sys.path[0] = job["cwd"]
    module, *rest = job["words"]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in ("matplotlib.backends.backend_agg", "actfocus.cli", "actfocus.training.run"):
        importlib.import_module(name)
    gc.freeze()  # a child's collections do not touch, and so copy, what all of them share
    # The streams of the zygote itself: a child has files in their place.
    own_in, own_out = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    if (task := _serve(own_in, own_out)) is not None:
        _become(task)
