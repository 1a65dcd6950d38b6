"""`actfocus webshop`: the catalogues of the shop."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from actfocus.cli.options import Json, optional
from actfocus.cli.outcome import Outcome
from actfocus.errors import ConfigError
from actfocus.report.output import printable
from actfocus.report.tables import figures_table


@dataclass(frozen=True)
class Webshop:
    """List the catalogues of the game WebShop, or import WebShop's own product files.

    The catalogue `shipped` comes with actfocus. To play and train with the products of the benchmark:
        actfocus webshop import DIR --name thousand
        actfocus play webshop --catalogue thousand

    DIR holds items_shuffle*.json, items_ins_v2*.json and, for people's requests, items_human_ins.json, each
    plain or with .gz. Every record is checked; a broken one is named by file, record and field.
    """

    action: tyro.conf.Positional[Literal["list", "import"]] = "list"
    """What to do."""
    folder: Annotated[tyro.conf.Positional[Path | None], optional("DIR")] = None
    """The folder to import from."""
    name: Annotated[str, tyro.conf.arg(metavar="NAME")] = "webshop"
    """What --env.catalogue will call the imported catalogue."""
    skip_broken: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave broken records out, instead of refusing the files."""
    replace: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Put it in the place of an earlier catalogue of that name."""
    json: Json = False

    def run(self) -> Outcome:
        """List, or import."""
        if self.action == "import":
            return self._import()
        if self.folder is not None:
            raise ConfigError(
                f"unexpected argument {str(self.folder)!r}; to import: actfocus webshop import DIR"
            )
        from actfocus.envs.webshop.catalogue import SHIPPED, catalogue_path, imported_names

        listed = {SHIPPED: "comes with actfocus"}
        listed |= {name: str(catalogue_path(name)) for name in imported_names()}
        lines = [printable(f"{name}: {where}") for name, where in listed.items()]
        return Outcome({"catalogues": listed}, lines)

    def _import(self) -> Outcome:
        from actfocus.envs.webshop.catalogue import import_catalogue

        if self.folder is None:
            raise ConfigError("which folder? actfocus webshop import DIR")
        found = import_catalogue(self.folder, self.name, skip_broken=self.skip_broken, replace=self.replace)
        figures = asdict(found)
        broken = figures.pop("broken")
        return Outcome(
            figures | {"broken": broken},
            [
                figures_table(figures | {"path": printable(found.path), "broken": len(broken)}),
                *(printable(f"left out: {line}") for line in broken[:20]),
                f"Next: actfocus play webshop --catalogue {self.name}",
            ],
        )
