"""Where the episodes come from: sampled anew, recorded in a run directory, or transcripts from elsewhere."""

import gzip
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from actfocus.config import Config, EnvConfig, FocusConfig, ModelConfig, RolloutConfig
from actfocus.diagnosis.agent import Agent, Subject
from actfocus.diagnosis.conversation import records_of
from actfocus.diagnosis.request import Request
from actfocus.diagnosis.transcripts import read_transcripts
from actfocus.envs import configured_env
from actfocus.errors import ModelError, RunError
from actfocus.focus import Role
from actfocus.models.chat import Chat
from actfocus.models.loading import load
from actfocus.report.progress import Progress
from actfocus.rollout.sampler import Limits, require_context, sample_episodes
from actfocus.rollout.seeds import training_starts
from actfocus.rollout.trajectory import Trajectory
from actfocus.run_directory import RunDirectory, numbered
from actfocus.training.checkpoint import find_checkpoint, load_policy
from actfocus.training.initial import load_initial, require_same_start, weights_digest

EPISODES_AT_ONCE = 64
"""Episodes that are sampled side by side: as many as fit in whole groups, at least one group."""
SAMPLED_STEP = 0
"""The step of the training seeds' stream whose start states are sampled: training begins with step 1."""


def subject_of(request: Request, device: torch.device, progress: Progress) -> Subject:
    """Load models and get the episodes that the request names.

    Raises:
        ModelError: If a model cannot be loaded.
        RunError: If there is no such run, checkpoint or record, or it is damaged.
        TranscriptError: If a transcript cannot be used.
        NonFiniteError: If the policy's distribution is broken.
    """
    if request.run is not None:
        return _of_run(request, request.run, device, progress)
    if request.transcripts is not None:
        return _of_transcripts(request, request.transcripts, device, progress)
    return _of_model(request, device, progress)


def sample_groups(
    agent: Agent, env: EnvConfig, *, seed: int, groups: int, group: int, limits: Limits, progress: Progress
) -> list[Trajectory]:
    """Play `groups` start states of the training seeds' stream, `group` times each, at temperature 1.

    They are those of step 0, which training never uses (it begins with step 1): the same for a model before
    and after training, if the seed is the same.
    """
    if agent.reference is not None:  # of the policy the sampler asks it
        require_context(agent.reference, limits, "the reference")
    starts = training_starts(seed, SAMPLED_STEP, groups, group)
    portion = max(1, EPISODES_AT_ONCE // group) * group
    progress.begin("sampling", -(-len(starts) // portion))
    records: list[Trajectory] = []
    for first in range(0, len(starts), portion):
        new = sample_episodes(
            agent.policy,
            agent.chat,
            lambda: configured_env(env),
            starts[first : first + portion],
            limits=limits,
        )
        records += new
        progress.advance({"episodes": len(records), "success": sum(r.success for r in new) / len(new)})
    return records


def _of_model(request: Request, device: torch.device, progress: Progress) -> Subject:
    agent = _agent(request, device)
    rollout = RolloutConfig()
    limits = Limits(request.context or rollout.context, request.response or rollout.response)
    seed = request.seed or 0
    records = sample_groups(
        agent,
        request.env,
        seed=seed,
        groups=request.groups,
        group=request.group,
        limits=limits,
        progress=progress,
    )
    about = {"kind": "model", "model": request.model, "env": _game(request.env), "seed": seed}
    return Subject(agent, records, request.focus or FocusConfig(), about | _reference(request))


def _of_transcripts(request: Request, path: Path, device: torch.device, progress: Progress) -> Subject:
    transcripts = read_transcripts(path)
    progress.note(f"{len(transcripts)} transcripts")
    agent = _agent(request, device)
    records, scribe = records_of(path, transcripts, agent.chat, longest=agent.longest)
    notes = [
        "The transcripts are read under the model that was named: if another one wrote them, nll, shift and"
        " gradient are not those of the policy that did."
    ]
    if any(message.calls for each in transcripts for message in each.messages):
        form = "in its own form" if scribe.knows_calls else "as <tool_call> text, for it knows none"
        notes.append(f"The model's chat template gets the tool calls {form}.")
    if not scribe.knows_calls and any(each.tools for each in transcripts):
        notes.append("The model's chat template knows no tools: their definitions are not in the prompt.")
    if silent := _replies_without_action(records):
        notes.append(f"In {silent} replies neither tags nor a call say what is the action: they are *other*.")
    about = {"kind": "transcripts", "file": str(path), "model": request.model}
    return Subject(agent, records, request.focus or FocusConfig(), about | _reference(request), notes=notes)


def _replies_without_action(records: Sequence[Trajectory]) -> int:
    count = 0
    for record in records:
        roles = list(zip(record.turns, record.roles, strict=True))
        wrote = {turn for turn, role in roles if role != Role.CONTEXT}
        count += len(wrote - {turn for turn, role in roles if role == Role.ACTION})
    return count


def _agent(request: Request, device: torch.device) -> Agent:
    """The model that is named, with the reference that is named, if one is."""
    policy, chat = _load(request, request.model, device)
    if request.reference is None:
        return Agent(policy, chat)
    reference, reference_chat = _load(request, request.reference, device)
    if _clash(chat, reference_chat):
        raise ModelError(
            f"the reference {request.reference} has another vocabulary than {request.model}, so that it would"
            " read other texts: name one with the same tokenizer"
        )
    known = reference.causal_lm.get_input_embeddings().num_embeddings
    if (largest := _largest_id(chat)) >= known:
        raise ModelError(
            f"the reference {request.reference} has embeddings for {known} tokens, but {request.model} writes"
            f" token {largest}: name a reference that knows the added tokens"
        )
    return Agent(policy, chat, reference, trained=True)


def _clash(one: Chat, other: Chat) -> bool:
    """Whether an id stands for different tokens; one may have tokens more, such as one for padding."""
    known = {number: token for token, number in other.tokenizer.get_vocab().items()}
    return any(known.get(number, token) != token for token, number in one.tokenizer.get_vocab().items())


def _largest_id(chat: Chat) -> int:
    """The largest id that a text can hold; padding never reaches a model, unless it also ends a turn."""
    tokenizer = chat.tokenizer
    padding = None if tokenizer.pad_token == tokenizer.eos_token else tokenizer.pad_token
    return max(int(number) for token, number in tokenizer.get_vocab().items() if token != padding)


def _load(request: Request, name: str, device: torch.device) -> Any:
    config = ModelConfig.model_validate({"name": name, "precision": request.precision})
    return load_initial(config, request.env, device=device)


def _reference(request: Request) -> dict[str, str]:
    return {"reference": request.reference or request.model}


def _game(env: EnvConfig) -> dict[str, Any]:
    return {"name": env.name, **env.settings()}


def _of_run(request: Request, path: Path, device: torch.device, progress: Progress) -> Subject:
    run = RunDirectory.open(path)
    config = run.config()
    step = None if request.recorded else request.step
    agent, found = _load_run(run, config, step, device)
    focus = request.focus or config.focus
    about = {
        "kind": "recorded" if request.recorded else "run",
        "run": str(path),
        "step": found,
        "env": _game(config.env),
        "model": config.model.name,
        "reference": config.model.name,
    }
    if request.recorded:
        records, steps = recorded_episodes(run, request.step)
        return Subject(
            agent, records, focus, about | {"steps": steps}, recorded=True, notes=_caveats(steps, found)
        )
    seed = config.seed if request.seed is None else request.seed
    rollout = config.rollout
    records = sample_groups(
        agent,
        config.env,
        seed=seed,
        groups=request.groups,
        group=request.group,
        limits=Limits(request.context or rollout.context, request.response or rollout.response),
        progress=progress,
    )
    return Subject(agent, records, focus, about | {"seed": seed})


def _load_run(run: RunDirectory, config: Config, step: int | None, device: torch.device) -> tuple[Agent, int]:
    """Policy of a checkpoint beside the model that the run was started from, and the checkpoint's step."""
    path, found = find_checkpoint(run.checkpoints, step)
    initial, chat = load_initial(config.model, config.env, device=device)
    require_same_start(run, weights_digest(initial))
    if config.model.lora_rank:  # the checkpoint holds the adapters alone
        load_policy(path, initial)
        return Agent(initial, chat, trained=found > 0), found
    policy, chat = load(config.model, path=path / "model", device=device)
    return Agent(policy, chat, initial, trained=True), found


def recorded_episodes(run: RunDirectory, step: int | None) -> tuple[list[Trajectory], list[int]]:
    """The episodes in a run's files, of one step or of all, and the steps; groups of each step are its own.

    Raises:
        RunError: If there are none, or a file is damaged.
    """
    files = numbered(run.path / "episodes", ".jsonl.gz")
    there = list(files)
    if not there:
        raise RunError(f"{run.path} has no recorded episodes (save_episodes_every)")
    if step is not None and step not in files:
        raise RunError(
            f"{run.path} has no episodes of step {step}; it has those of {', '.join(map(str, there))}"
        )
    records: list[Trajectory] = []
    steps = there if step is None else [step]
    for each in steps:
        offset = max((record.start.group for record in records), default=-1) + 1
        for record in _read_episodes(files[each]):
            record.start = record.start._replace(group=record.start.group + offset)
            records.append(record)
    if not records:
        raise RunError(f"the files of episodes in {run.path} hold no episode")
    return records, steps


def _read_episodes(path: Path) -> list[Trajectory]:
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        records = [Trajectory.from_json(json.loads(line)) for line in lines]
        for number, record in enumerate(records, start=1):
            if problem := _problem(record):
                raise ValueError(f"line {number}: {problem}")
        return records
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}") from None


def _problem(record: Trajectory) -> str | None:
    """What would be read as other tokens, roles or figures than were recorded."""
    if not len(record.ids) == len(record.roles) == len(record.logprobs):
        return "it has not one role and one log-probability per token"
    if not all(type(number) is int and 0 <= number < 2**31 for number in [*record.ids, record.start.group]):
        return "token ids and group must be whole numbers"
    if not all(type(role) is int and role in range(len(Role)) for role in record.roles):
        return f"roles must be 0 to {len(Role) - 1}"
    if record.roles[:1] != [Role.CONTEXT]:
        return "it must begin with a token of the prompt"
    figures = [*record.logprobs, *record.rewards]
    if not all(type(figure) in (int, float) and math.isfinite(figure) for figure in figures):
        return "log-probabilities and rewards must be finite numbers"
    return None


def _caveats(steps: Sequence[int], checkpoint: int) -> list[str]:
    own = checkpoint + 1  # an episode of step n was sampled by the weights of step n - 1
    sampled = f"those of step {own}" if own in steps else "none of these episodes"
    notes = [
        "nll and shift are those of the policy that sampled; the gradient is that of the weights of the"
        f" checkpoint of step {checkpoint}, which sampled {sampled}."
    ]
    if len(steps) > 1:
        notes.append(
            f"The groups of {len(steps)} steps are pooled: a trend in training can make or hide a"
            " correlation. --step N takes one step alone."
        )
    return notes
