"""Saved models' metaprompts: read without loading anything, compared, edited into new versions that are measured."""

from __future__ import annotations

import difflib
import shutil
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from tailorbird import plugins
from tailorbird.catalogue import model_folder
from tailorbird.errors import InputError, NotFound, RecipeError
from tailorbird.planning import valid_name

if TYPE_CHECKING:
    from tailorbird.models.model import Model
    from tailorbird.records import Message
    from tailorbird.techniques.metaprompt import Metaprompt

KIND = "few_shot"
FILE = "metaprompt.toml"
NOT_EDITED = ("version", "parent", "pool", "measured", "made_of", "calibration", "abstain_below")
"""What an edit makes anew."""
KEPT_FILES = ("training.json", "training.html", "training")
"""What of a saved model is neither weights nor wrappers."""


@dataclass(frozen=True)
class KeptMetaprompt:
    """A saved model's metaprompt: its file at every version, the present one last."""

    model: str
    texts: tuple[str, ...]

    @property
    def version(self) -> int:
        """The present version, from 1."""
        return len(self.texts)

    def text(self, version: int | None = None) -> str:
        """The file at a version; None: the present one.

        Raises:
            NotFound: there is no such version.
        """
        number = self.version if version is None else version
        if not 1 <= number <= self.version:
            raise NotFound(
                f"metaprompt of {self.model!r}: there is no version {number}. It has versions 1 to {self.version}."
            )
        return self.texts[number - 1]

    def facts(self, version: int | None = None) -> dict[str, Any]:
        """The file at a version, as values."""
        return tomllib.loads(self.text(version))

    def with_settings(self, settings: dict[str, Any], version: int | None = None) -> str:
        """The file at a version, with other values of some keys, to be given to `Metaprompts.edit`.

        Raises:
            RecipeError: a key that can't be edited.
        """
        if made := sorted(set(settings) & set(NOT_EDITED)):
            raise RecipeError(
                f"metaprompt: {made[0]} is made anew with every edit. Change another key, such as k, select, "
                "instruction, calibrate or precision."
            )
        return tomli_w.dumps({**self.facts(version), **settings}, multiline_strings=True)

    def difference(self, old: int | None = None, new: int | None = None) -> str:
        """A unified diff of two versions, by default the last two; '' where they are the same.

        Raises:
            NotFound: there is no such version, or only one.
        """
        if self.version < 2 and (old is None or new is None):
            raise NotFound(
                f"metaprompt of {self.model!r}: it has one version only, so there is nothing to compare it with. "
                f"`tailor metaprompt edit {self.model}` makes another."
            )
        later = self.version if new is None else new
        earlier = later - 1 if old is None else old
        sides = [self.text(number).splitlines(keepends=True) for number in (earlier, later)]
        return "".join(difflib.unified_diff(sides[0], sides[1], f"version {earlier}", f"version {later}"))


@dataclass(frozen=True)
class Metaprompts:
    """The metaprompts of a project's saved models and of the arms of its last comparison.

    Args:
        state: the project's state folder.
    """

    state: Path

    def read(self, name: str) -> KeptMetaprompt:
        """The metaprompt of a model; of several the outermost.

        Raises:
            NotFound: there is no such model, or it has no metaprompt.
        """
        folder = self._folder(name)
        part = _part(folder, name)
        earlier = sorted((part / "versions").glob("*.toml"), key=lambda path: int(path.stem))
        return KeptMetaprompt(name, tuple(path.read_text("utf-8") for path in (*earlier, part / FILE)))

    def shown(self, name: str, message: str) -> tuple[Message, ...]:
        """What the weights see of a model asked this message, as turns.

        Raises:
            NotFound: there is no such model.
        """
        from tailorbird.models.chat_template import turns_of
        from tailorbird.models.model import as_seen_by_weights
        from tailorbird.opening import open_reference
        from tailorbird.records import Message

        self._folder(name)
        opened = open_reference(self.state, name)
        return turns_of(as_seen_by_weights(opened.model, opened.request([Message("user", message)])))

    def edit(self, name: str, text: str, *, as_name: str | None = None) -> KeptMetaprompt:
        """A model with this metaprompt in place of its own: fitted to its base, measured on dev, a version more.

        The version before stays beside the new one. Nothing is changed where the text is as it was, or makes no sense.

        Args:
            name: of the model.
            text: the edited file.
            as_name: saves it as a model of this name instead; needed for an arm of a comparison.

        Raises:
            NotFound: there is no such model, or it has no metaprompt.
            InputError: the name is taken or can't be used, or nothing was changed.
            RecipeError: the text is no metaprompt, or needs examples that were not kept.
        """
        from tailorbird.models.folders import load_model, read_record, save_model
        from tailorbird.opening import set_threads

        folder, target = self._folder(name), self._target(name, as_name)
        number = int(_part(folder, name).name)
        before = self.read(name).text()
        if _editable(text) == _editable(before):
            raise InputError(f"metaprompt of {name!r}: nothing was changed, so there is no new version.")
        set_threads()
        saved = load_model(folder, plugins.rewrite_loaders())
        model = _with_metaprompt(saved.model, number, text, saved.task, f"metaprompt of {name}")
        record = read_record(folder)
        save_model(
            model,
            target,
            task=saved.task,
            lineage={**saved.lineage, "edited": record["lineage"].get("edited", 0) + 1},
            replay=saved.replay,
            replace_old=target == folder,
            add_files=lambda building: _copy_rest(folder, building),
        )
        return self.read(target.name)

    def _folder(self, name: str) -> Path:
        folder = model_folder(self.state, name)
        if folder is None:
            raise NotFound(
                f"model {name!r}: nothing of that name is saved here. `tailor models list` shows what is."
            )
        return folder

    def _target(self, name: str, as_name: str | None) -> Path:
        saved = self.state / "models" / name
        if as_name is None:
            if not saved.is_dir():
                raise InputError(
                    f"model {name!r} is an arm of a comparison, which stays as it was measured. Give the edited one a "
                    "name of its own with --name."
                )
            return saved
        target = self.state / "models" / valid_name(as_name)
        if target.exists():
            raise InputError(f"model {as_name!r} exists already. Choose another name.")
        return target


def _editable(text: str) -> dict[str, Any] | None:
    """What of a file can be edited; None of one that is not TOML."""
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    return {key: value for key, value in rows.items() if key not in NOT_EDITED}


def _part(folder: Path, name: str) -> Path:
    """The folder of a saved model's outermost metaprompt."""
    found = sorted(
        (path.parent for path in folder.glob(f"rewrites/*/{FILE}")), key=lambda path: int(path.name)
    )
    if not found:
        raise NotFound(
            f"model {name!r}: it has no metaprompt. `tailor customize --steps few_shot` makes a model that has one."
        )
    return found[-1]


def _with_metaprompt(model: Model, number: int, text: str, task: Any, where: str) -> Model:
    """The model with the wrapper of this number (0 is the innermost) in another version; those outside fitted again."""
    from tailorbird.data.task import Data
    from tailorbird.models.model import FittedRewrite, Wrapped, rewrites_of

    depth = len(rewrites_of(model)) - 1 - number
    outside, inner = [], model
    for _ in range(depth):
        assert isinstance(inner, Wrapped)
        outside.append(inner.rewrite)
        inner = inner.base
    assert isinstance(inner, Wrapped)
    old: Any = inner.rewrite
    data = Data(task, old.pool or old.shown, old.dev)
    made: Model = Wrapped(inner.base, _edited(old, inner.base, data, text, where))
    for rewrite in reversed(outside):
        made = Wrapped(made, rewrite.fitted(made, data) if isinstance(rewrite, FittedRewrite) else rewrite)
    return made


def _edited(old: Metaprompt, base: Model, data: Any, text: str, where: str) -> Metaprompt:
    from tailorbird.models.model import Wrapped
    from tailorbird.techniques.metaprompt_fit import measure

    new = old.edited(text, where)
    made = new.fitted(base, data)
    if not made.measured and made.dev:
        made = replace(made, measured=measure(Wrapped(base, made), data, made.dev))
    return made


def _copy_rest(old: Path, building: Path) -> None:
    for name in KEPT_FILES:
        if (old / name).is_dir():
            shutil.copytree(old / name, building / name)
        elif (old / name).is_file():
            shutil.copy2(old / name, building / name)
