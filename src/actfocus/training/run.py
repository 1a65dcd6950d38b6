"""A whole run: start, resume or evaluate; steps, checkpoints, and what is left on disk at the end."""

import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from actfocus.algorithms import ALGORITHMS
from actfocus.config import Config, EvaluationConfig, explain
from actfocus.distributed import Processes
from actfocus.errors import ActfocusError, ConfigError, NonFiniteError, RunError
from actfocus.evaluation import evaluate
from actfocus.models.critic import Critic
from actfocus.models.loading import load
from actfocus.models.reference import make_reference
from actfocus.report.curve import draw_learning_curve
from actfocus.report.progress import Progress
from actfocus.report.summary.page import write_report
from actfocus.report.trackers import Tracking, check_installed, remembered_trackers, tracking
from actfocus.run_directory import RunDirectory, numbered, write_whole
from actfocus.training.checkpoint import (
    find_checkpoint,
    keep_only,
    latest_checkpoint,
    load_policy,
    load_state,
    save_checkpoint,
)
from actfocus.training.initial import load_initial, require_same_start, weights_digest
from actfocus.training.loop import Loop, Step
from actfocus.training.scoring import Scorer
from actfocus.training.update import Updater


def train(config: Config, out: Path, *, progress: Progress, trackers: Sequence[str] = ()) -> dict[str, Any]:
    """Train a new run at `out`; returns its summary (see `summarise_run`).

    Raises:
        RunError: If `out` exists, or the package of a tracker is missing.
        ModelError: If the model cannot be loaded.
        GameError: If a game of the user's own raises.
        NonFiniteError: If training breaks; the offending batch is in `failed/`.
    """
    check_installed(trackers)
    processes = Processes()
    with processes.together():
        run = RunDirectory.create(out, config) if processes.is_main else RunDirectory(out)
    with _claimed(run, processes):
        try:
            whole = Run(config, run, processes, progress)
            with _tracked(run, trackers, processes, progress) as whole.tracking:
                return whole.go(start=0)
        except ActfocusError:
            # A run that never began would only stand in the way of the corrected command.
            if processes.is_main and not run.lines():
                shutil.rmtree(run.path)
            raise


def resume(
    path: Path,
    *,
    progress: Progress,
    trackers: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Continue a run from its newest checkpoint, bit for bit; returns its summary.

    Its trackers may be others than before; None are those that it had.

    Raises:
        RunError: If there is no run, its checkpoints are damaged, its initial model is not the one it was
            started with, or the package of a tracker is missing.
    """
    processes = Processes()
    run = RunDirectory.open(path)
    config = run.config()
    names = remembered_trackers(path) if trackers is None else tuple(trackers)
    check_installed(names)
    with _claimed(run, processes):
        return _continue(config, run, processes, progress, names)


@contextmanager
def _claimed(run: RunDirectory, processes: Processes) -> Iterator[None]:
    """Hold the run's lock, in the main process for all of them."""
    with ExitStack() as held:
        with processes.together():
            if processes.is_main:
                held.enter_context(run.locked())
        yield


@contextmanager
def _tracked(
    run: RunDirectory, trackers: Sequence[str], processes: Processes, progress: Progress
) -> Iterator[Tracking]:
    """The trackers, in the main process; an error there stops all ranks."""
    with ExitStack() as held:
        whole = Tracking()
        with processes.together():
            if processes.is_main:
                whole = held.enter_context(tracking(run, trackers, progress.note))
        yield whole


def _continue(
    config: Config, run: RunDirectory, processes: Processes, progress: Progress, trackers: Sequence[str]
) -> dict[str, Any]:
    checkpoint, start = latest_checkpoint(run.checkpoints) or (None, 0)
    if checkpoint is not None and start == config.steps:
        progress.note(f"{run.path} has all of its {start} steps already: there is nothing to train")
        if processes.is_main:  # what a kill after the last checkpoint left undone
            keep_only(checkpoint)
            _draw(run, progress)
        with _tracked(run, trackers, processes, progress):
            pass  # they have been told what they lack
        return summarise_run(run) | {"seconds": 0.0}
    whole = Run(config, run, processes, progress)
    if checkpoint is not None:
        progress.note(f"resuming after step {start}")
        load_policy(checkpoint, whole.policy)
        load_state(checkpoint, critic=whole.critic, optimizer=whole.updater.optimizer)
    elif run.lines():
        progress.note("there is no checkpoint yet: the run begins anew")
    with processes.together():
        if processes.is_main:
            # Without a checkpoint the run starts over, the first evaluation included.
            run.rewind(start if checkpoint is not None else -1)
    with _tracked(run, trackers, processes, progress) as whole.tracking:
        return whole.go(start=start)


class Run:
    """All parts of a run, put together; `go` drives them."""

    def __init__(self, config: Config, run: RunDirectory, processes: Processes, progress: Progress) -> None:
        # The same machine, versions, config and seed must give the same bits.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # A GPU has no such cumsum, which sampling needs: there it warns instead of stopping. Then torch also
        # lets the backward of its fused attention add in any order: on a GPU bits are not promised.
        torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
        self.config, self.directory, self.processes, self.progress = config, run, processes, progress
        self.tracking = Tracking()
        self.policy, self.chat = load_initial(config.model, config.env, device=processes.device)
        with processes.together():
            if processes.is_main:
                self._pin_environment()
        reference = make_reference(self.policy) if config.needs_reference else None
        algorithm = ALGORITHMS[config.algorithm.name](config.algorithm)
        self.critic = Critic(self.policy) if algorithm.uses_critic else None
        self.updater = Updater(config, processes, algorithm, self.policy, self.critic)
        scorer = Scorer(config, processes, self.policy, self.critic, reference)
        self.loop = Loop(config, processes, self.policy, self.chat, algorithm, scorer, self.updater)

    def go(self, start: int) -> dict[str, Any]:
        """Run the steps after `start`; returns the summary."""
        config, began = self.config, time.perf_counter()
        if start == 0:
            self._record(0, self._evaluate(), {})
        self.progress.begin(f"training {config.env.name} with {config.algorithm.name}", config.steps - start)
        for number in range(start + 1, config.steps + 1):
            self._one_step(number)
        self.progress.end()
        if config.steps == 0 and self.processes.is_main:
            self._save(0)
        if self.processes.is_main:
            _draw(self.directory, self.progress)
        self.processes.wait()  # the others read what the main process has written
        return summarise_run(self.directory) | {"seconds": time.perf_counter() - began}

    def _one_step(self, number: int) -> None:
        config, step, began = self.config, Step(number), time.perf_counter()
        try:
            self.loop.run(step)
        except NonFiniteError as error:
            raise self._give_up(step, f"stopped before the update: {error}") from error
        is_saved = number in config.due(config.checkpoint_every)
        metrics = dict(step.metrics)
        try:
            if number in config.due(config.evaluation.every):
                with step.watch("evaluation"):
                    metrics |= self._evaluate()
            if is_saved:
                assert step.batch is not None
                self.updater.require_healthy(step.batch)
        except NonFiniteError as error:
            raise self._give_up(step, f"is not kept, its update broke the model: {error}") from error
        if not self.processes.is_main:
            return
        if number in config.due(config.save_episodes_every):
            self.directory.write_episodes("episodes", number, step.records())
        seconds = time.perf_counter() - began
        self._record(number, metrics, step.watch.seconds | {"step": seconds})
        if is_saved:
            self._save(number)
        self.progress.advance({"step": number, "seconds": seconds} | _shown(metrics))

    def _evaluate(self) -> dict[str, Any]:
        self.progress.note("evaluating")
        result = evaluate(self.config, self.config.evaluation, self.policy, self.chat, self.processes)
        self.progress.note(f"success {result.success:.1%} [{result.low:.1%}, {result.high:.1%}]")
        return {"evaluation": result.to_json()}

    def _record(self, number: int, metrics: dict[str, Any], seconds: dict[str, float]) -> None:
        if not self.processes.is_main:
            return
        memory: dict[str, float] = {"peak_memory_bytes": float(_peak_memory())}
        timing = {"step": number, "seconds": seconds} | memory
        self.directory.append("metrics.jsonl", metrics | {"step": number})
        self.directory.append("timing.jsonl", timing)
        self.tracking.log(metrics | timing)

    def _save(self, number: int) -> None:
        save_checkpoint(
            self.directory.checkpoints,
            number,
            policy=self.policy,
            chat=self.chat,
            critic=self.critic,
            optimizer=self.updater.optimizer,
        )

    def _give_up(self, step: Step, problem: str) -> NonFiniteError:
        """Write the offending batch, and say what is left and what to do."""
        where = "nothing was sampled"
        if step.episodes:
            where = f"its batch is in {self.directory.episodes_path('failed', step.number)}"
            if self.processes.is_main:
                self.directory.write_episodes("failed", step.number, step.records())
        kept = latest_checkpoint(self.directory.checkpoints)
        last = f"the last healthy checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
        return NonFiniteError(
            f"step {step.number} {problem}; {where}; {last}. Start a new run with a lower optimizer.lr"
        )

    def _pin_environment(self) -> None:
        """Remember what the bits depend on besides the config; refuse to resume from another model."""
        path = self.directory.path / "environment.json"
        found = _environment(self.processes) | {"initial_weights": weights_digest(self.policy)}
        if not path.exists():
            if numbered(self.directory.checkpoints):
                raise RunError(
                    f"{path} is missing, so it is not known whether the run began with these weights of"
                    f" {self.config.model.name}: copy the file from where the run was made"
                )
            write_whole(path, json.dumps(found, indent=2).encode())
            return
        before = self.directory.environment()
        require_same_start(self.directory, found["initial_weights"])
        last = dict(before)
        for later in before.get("resumed", []):
            last |= later
        changed = {key: found[key] for key in found if last.get(key) != found[key]}
        if changed:
            self.progress.note(f"warning: {', '.join(changed)} changed: the run goes on, with other bits")
            before["resumed"] = [*before.get("resumed", []), changed]
            write_whole(path, json.dumps(before, indent=2).encode())


def evaluate_run(
    run: Path,
    *,
    states: int | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    step: int | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Evaluate the newest checkpoint of a run (or that of `step`); what is None is the run's own setting.

    Raises:
        RunError: If there is no such run or no such checkpoint.
        ConfigError: If a setting is out of range.
    """
    directory = RunDirectory.open(run)
    config = directory.config()
    given = {"states": states, "samples": samples, "temperature": temperature}
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        settings = EvaluationConfig.model_validate(config.evaluation.model_dump() | changes)
    except ValidationError as error:
        raise ConfigError(explain(error, Config)) from None
    path, found = find_checkpoint(directory.checkpoints, step)
    processes = Processes()
    if config.model.lora_rank:  # the checkpoint holds the adapters alone
        policy, chat = load_initial(config.model, config.env, device=processes.device)
        require_same_start(directory, weights_digest(policy))
        load_policy(path, policy)
    else:
        policy, chat = load(config.model, path=path / "model", device=processes.device)
    progress.note(f"evaluating step {found} on {settings.states} start states x {settings.samples} episodes")
    return {"step": found} | evaluate(config, settings, policy, chat, processes).to_json()


def summarise_run(run: RunDirectory) -> dict[str, Any]:
    """The evaluations of a run, and what became of it: all JSON."""
    lines = run.lines()
    evaluations = [{"step": line["step"]} | line["evaluation"] for line in lines if "evaluation" in line]
    return {
        "run": str(run.path),
        "steps": lines[-1]["step"] if lines else 0,
        "evaluations": evaluations,
        "final_success": evaluations[-1]["success"] if evaluations else None,
        "peak_success": max((e["success"] for e in evaluations), default=None),
    }


def _draw(run: RunDirectory, progress: Progress) -> None:
    try:
        draw_learning_curve(run.config(), run.lines(), run.path / "learning_curve.png")
        write_report(run.path)
    except OSError:  # a full disk is said as everywhere
        raise
    except Exception as error:  # whatever it is: the run is whole, and the page can be written later
        progress.note(f"warning: no picture or report.html ({error}); later: actfocus report {run.path}")


def _shown(metrics: dict[str, Any]) -> dict[str, float]:
    names = {"return": "return", "success": "success", "policy_loss": "loss"}
    return {shown: metrics[name] for name, shown in names.items() if name in metrics}


def _environment(processes: Processes) -> dict[str, Any]:
    import numpy
    import transformers

    import actfocus

    # The instructions that torch uses: two processors of one architecture may round differently.
    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {
        "actfocus": actfocus.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor,
        "threads": torch.get_num_threads(),
        "processes": processes.count,
    }


def _peak_memory() -> int:
    """Largest resident memory of this process so far, or of its GPU, in bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
