"""`actfocus models`: which models have a name, and fetching one."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome
from actfocus.errors import ConfigError, ModelError
from actfocus.report.progress import make_progress
from actfocus.report.tables import models_table


@dataclass(frozen=True)
class Models:
    """List the models that have a short name, or fetch one of them.

    The list; and a download, so that training needs no network:
        actfocus models
        actfocus models fetch smollm2-135m

    Besides these, --model takes a Hugging Face id, a folder, or a .gguf file.
    """

    action: tyro.conf.Positional[Literal["list", "fetch"]] = "list"
    """What to do."""
    name: Annotated[tyro.conf.Positional[str | None], optional("NAME")] = None
    """The model to fetch."""
    json: Json = False

    def run(self) -> Outcome:
        """List, or fetch."""
        if self.action == "fetch":
            return self._fetch()
        if self.name is not None:
            raise ConfigError(
                f"unexpected argument {self.name!r}; to download it: actfocus models fetch {self.name}"
            )
        from actfocus.models.registry import models

        listed = models()
        return Outcome({"models": listed}, [models_table(listed)])

    def _fetch(self) -> Outcome:
        from actfocus.models.registry import fetch

        if self.name is None:
            raise ModelError("which model? actfocus models lists them; then: actfocus models fetch NAME")
        progress = make_progress()
        try:
            path = fetch(self.name, progress=progress)
        finally:
            progress.end()
        return Outcome({"name": self.name, "path": str(path)}, [f"{self.name}: {path}"])
