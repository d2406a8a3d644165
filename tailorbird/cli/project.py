"""Which project folder the commands work in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

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

        return Workbench(self.folder)


def project_of(context: typer.Context) -> Project:
    """The project that the command line chose."""
    return context.find_object(Project) or Project(Path())
