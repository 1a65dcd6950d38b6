"""Trackers: TensorBoard, trackio, Weights & Biases, fed by the lines of `metrics.jsonl` and `timing.jsonl`.

Those files stay the truth. A tracker gets what was written there, and when a run is resumed it first gets
whatever it lacks, so that neither a kill nor a tracker that was chosen late leaves a hole. A tracker that
fails is named once and dropped: training goes on. This file must not import torch, nor a tracker before it
is used.
"""

import contextlib
import importlib.util
import io
import json
import math
import netrc
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from actfocus.errors import RunError
from actfocus.run_directory import RunDirectory, write_whole

TrackerName = Literal["tensorboard", "trackio", "wandb"]

PROJECT = "actfocus"
"""The project that trackio and wandb file a run under, unless the user's environment names another."""

STATE = "tracking.json"
"""In the run directory: which trackers it has, and under which id each of them knows the run."""

PATIENCE = 60.0
"""Seconds that wandb may take to upload what is left at the end of a run; the rest stays on disk."""

Figures = Mapping[str, float]
Settings = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class Subject:
    """What a tracker is told of a run before the first step."""

    path: Path
    settings: Settings
    """The resolved configuration, under dotted keys."""
    id: str | None
    """The tracker's own name for the run, if it had the run before."""

    @property
    def name(self) -> str:
        """The name that people see: that of the run directory."""
        return self.path.resolve().name


class Tracker(Protocol):
    """One run in one tracker; made with a `Subject`. Any method may raise whatever the package raises."""

    id: str
    """Finds the run again when it is resumed."""
    newest: int
    """The newest step that the tracker has and keeps: no step up to it is sent again. -1 if there is none."""
    where: str
    """What the user can do to see the run."""

    def log(self, step: int, figures: Figures) -> None:
        """Take the figures of a step; steps come in order."""

    def close(self, failed: bool) -> None:
        """Finish, and write or send what is left."""


class TensorBoard:
    """Event files in the run directory itself: `tensorboard --logdir runs` then calls runs by their names."""

    # In the table of hyper-parameters, beside them.
    _RESULTS = ("evaluation/success", "evaluation/return")

    def __init__(self, subject: Subject) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        # A resumed run voids what is in older files, which may lack steps or have too many, and writes every
        # step again. The first file says so too: of several, TensorBoard overlooks the first that does.
        self._writer = SummaryWriter(str(subject.path), purge_step=0)
        self.id, self.newest = subject.name, -1
        self.where = f"tensorboard --logdir {subject.path.parent}"
        # Not `add_hparams`: it makes a second run of its own, named after the time.
        writer: Any = self._writer.file_writer
        for summary in hparams(subject.settings, dict.fromkeys(self._RESULTS, 0.0)):
            writer.add_summary(summary)

    def log(self, step: int, figures: Figures) -> None:
        """Write at once: whoever watches a run wants the step that has just ended."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """Close the file."""
        self._writer.close()


class Trackio:
    """A run in trackio's database on this machine, or where TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says."""

    def __init__(self, subject: Subject) -> None:
        self._remote = bool(os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL"))
        run = self._init(subject, "never" if subject.id is None else "allow")
        if subject.id not in (None, run.id) and run._next_step > 0:
            # The newest run of this name is another directory's. Ours starts over under an id of its own.
            run = self._init(subject, "never")
        self._run = run
        self.id: str = run.id
        self.newest: int = run._next_step - 1
        # Not the address: it may hold the token that allows to write.
        self.where = "sent where you said" if self._remote else f"trackio show --project {PROJECT}"

    def log(self, step: int, figures: Figures) -> None:
        """Queue the figures; a thread of trackio's writes them within a second."""
        self._run.log(dict(figures), step=step)

    def close(self, failed: bool) -> None:
        """Wait for that thread, at most half a minute."""
        import trackio

        with _unheard():
            trackio.finish()  # not the run's own: it would be finished again when Python ends

    def _init(self, subject: Subject, resume: str) -> Any:
        with _unheard(), contextlib.nullcontext() if self._remote else _hub_offline():
            import trackio

            return trackio.init(
                project=PROJECT,
                name=subject.name,
                config=subject.settings,
                resume=resume,
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep what trackio prints from stdout: the command's result stands there."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Keep trackio from asking the Hub who is logged in, for a run that stays on this machine."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


class Wandb:
    """A run in Weights & Biases: online if the user is logged in and has not chosen otherwise, else offline.

    It gets the records and the configuration alone: no console, code, git, command line or system figures.
    """

    def __init__(self, subject: Subject) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to the makers of wandb, over the network
        import wandb

        mode = _wandb_mode(wandb.setup().settings)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=subject.name,
            id=subject.id or secrets.token_hex(4),
            config=dict(subject.settings),
            mode=mode,
            resume="allow" if mode == "online" else None,  # it says aloud that offline it cannot
            dir=os.environ.get("WANDB_DIR", str(subject.path)),
            save_code=False,
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                finish_timeout=PATIENCE,
                init_timeout=PATIENCE / 2,
                quiet=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        self.id: str = self._run.id
        # Offline nothing is known of earlier parts, so each part holds the whole run, from step 0.
        self.newest: int = self._run.starting_step - 1
        places = {"online": self._run.url, "offline": f"wandb sync {Path(self._run.dir).parent}"}
        self.where = places.get(mode, mode)

    def log(self, step: int, figures: Figures) -> None:
        """Hand the figures to wandb's own process."""
        self._run.log(dict(figures), step=step, commit=True)

    def close(self, failed: bool) -> None:
        """Wait for the upload, with patience but not for ever."""
        self._run.finish(exit_code=1 if failed else 0)


def _wandb_mode(settings: Any) -> str:
    """`online` only for who is logged in: wandb would ask for a key, in the middle of a run."""
    if settings.mode != "online":
        return str(settings.mode)
    if settings.api_key or settings.identity_token_file:
        return "online"
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(settings.base_url).netloc)
    except (OSError, netrc.NetrcParseError):
        known = None
    return "online" if known and known[2] else "offline"  # an entry may lack the password


TRACKERS: dict[str, Callable[[Subject], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}


class Tracking:
    """The trackers of a run. Without any it does nothing."""

    def __init__(self, note: Callable[[str], None] = lambda text: None) -> None:
        self._note = note
        self._open: dict[str, Tracker] = {}

    def begin(self, name: str, subject: Subject) -> str | None:
        """Open a tracker; returns its id for the run, or None if it failed."""
        with self._dropped_if_it_fails(name):
            tracker = self._open[name] = TRACKERS[name](subject)
            self._note(f"{name}: {tracker.where}")
        return self._open[name].id if name in self._open else None

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand a line of the run's files to every tracker that lacks its step."""
        figures = flat_figures(record)
        for name, tracker in list(self._open.items()):
            with self._dropped_if_it_fails(name):
                if record["step"] > tracker.newest:
                    tracker.log(record["step"], figures)

    def close(self, failed: bool) -> None:
        """Close all trackers."""
        for name, tracker in list(self._open.items()):
            with self._dropped_if_it_fails(name):
                tracker.close(failed)
        self._open.clear()

    @contextmanager
    def _dropped_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:  # whatever a package does, training goes on
            self._open.pop(name, None)
            why = f"{type(error).__name__}: {error}".strip(": ")
            self._note(f"warning: tracker {name} failed and is dropped; metrics.jsonl has everything ({why})")


@contextmanager
def tracking(
    run: RunDirectory, names: Sequence[str], note: Callable[[str], None] = lambda text: None
) -> Iterator[Tracking]:
    """The trackers of these names, told all that the run's files hold already; closed in any case.

    Only for the main process, after `RunDirectory.rewind`.
    """
    trackers = Tracking(note)
    try:
        _begin(trackers, run, names)
        yield trackers
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close(failed=False)


def _begin(trackers: Tracking, run: RunDirectory, names: Sequence[str]) -> None:
    state = _State.of(run.path)
    if names:
        state.save(names)
        settings = flat_settings(run.config().model_dump(mode="json"))
        for name in names:
            found = trackers.begin(name, Subject(run.path, settings, state.ids.get(name)))
            if found is not None:
                # Before a figure is sent: else a kill here would leave a part of the run under a lost id.
                state.ids[name] = found
                state.save(names)
        timing = {line["step"]: line for line in run.lines("timing.jsonl")}
        for line in run.lines():
            trackers.log(line | timing.get(line["step"], {}))
    elif state.names:
        state.save(())


def remembered_trackers(run: Path) -> tuple[str, ...]:
    """The trackers that a run had when it last went on: a resumed run keeps them."""
    return _State.of(run).names


def check_installed(names: Sequence[str]) -> None:
    """Raise `RunError` if the package of a tracker is missing, before anything slow happens."""
    for name in names:
        if name not in TRACKERS:
            raise RunError(f"there is no tracker {name!r}; there are {', '.join(TRACKERS)}")
    # A folder of that name, such as wandb leaves behind, also counts as a package, but comes from no file.
    found = {name: importlib.util.find_spec(name) for name in names}
    missing = [name for name, spec in found.items() if spec is None or spec.origin is None]
    if missing:
        raise RunError(
            f"--tracker {missing[0]} needs the package {missing[0]}: pip install 'actfocus[tracking]', or go"
            " on without it: --tracker none"
        )


def flat_figures(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The finite numbers of a record as `evaluation/success`; a chart has no place for anything else."""
    flat: dict[str, float] = {}
    for key, value in record.items():
        if not prefix and key in ("schema", "step"):
            continue
        if isinstance(value, Mapping):
            flat |= flat_figures(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            flat[f"{prefix}{key}"] = int(value) if isinstance(value, bool) else value
    return flat


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Settings:
    """A configuration as `focus.alpha`: what is not set is left out, lists become text."""
    flat: Settings = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


@dataclass
class _State:
    """What is in `STATE`. It may be lost: a tracker then takes the run for a new one."""

    path: Path
    names: tuple[str, ...]
    ids: dict[str, str]

    @classmethod
    def of(cls, run: Path) -> "_State":
        path = run / STATE
        try:
            found = json.loads(path.read_text())
            return cls(path, tuple(map(str, found["trackers"])), {**found["ids"]})
        except FileNotFoundError:
            return cls(path, (), {})
        except (ValueError, KeyError, TypeError):
            raise RunError(f"{path} is damaged: delete it; its trackers then take the run for new") from None

    def save(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        write_whole(self.path, json.dumps({"trackers": names, "ids": self.ids}, indent=2).encode())
