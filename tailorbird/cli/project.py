"""Which project folder the commands work in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tailorbird.errors import NotFound

if TYPE_CHECKING:
    from tailorbird.workbench import Workbench


@dataclass(frozen=True)
class Project:
    """The folder chosen by `--project`; files named on the command line are relative to where one stands."""

    folder: Path

    def workbench(self) -> Workbench:
        """The project's verbs.

        Raises:
            NotFound: There is no such folder.
        """
        from tailorbird.workbench import Workbench

        if not self.folder.is_dir():
            raise NotFound(
                f"--project {self.folder}: no such folder. Make a project there with: tailor init {self.folder}"
            )
        return Workbench(self.folder)


def project_of(context: typer.Context) -> Project:
    """The project that the command line chose."""
    found = context.find_object(Project)
    return found or Project(Path())
