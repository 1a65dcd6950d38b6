"""What is to be diagnosed, and how. Imports no torch: a wrong request is refused at once."""

from dataclasses import dataclass
from pathlib import Path

from actfocus.config import EnvConfig, FocusConfig


@dataclass(frozen=True)
class Request:
    """One of three: a model in an environment, a run (`run`), or transcripts from elsewhere."""

    run: Path | None = None
    step: int | None = None
    """Of the run: which checkpoint, or with `recorded` which episodes; None: the last, or all."""
    recorded: bool = False
    """Of the run: its recorded episodes, instead of new ones."""
    transcripts: Path | None = None
    model: str = "tiny"
    reference: str | None = None
    """The frozen reference; None: the run's own, or the model itself."""
    precision: str = "float32"
    env: EnvConfig = EnvConfig()  # noqa: RUF009 - frozen
    focus: FocusConfig | None = None
    """The weights after weighting; None: the run's own."""
    groups: int = 64
    group: int = 8
    """Episodes in a group."""
    seed: int | None = None
    """None: the run's own, or 0."""
    context: int | None = None
    """Tokens in an episode; None: the run's own, or the default of training."""
    response: int | None = None
    """Tokens in a reply, likewise."""
    micro_batch: int = 8
    """Trajectories per forward pass."""
    gradient_groups: int | None = None
    """Groups for the gradient share; None: all whose returns vary; 0: none."""
