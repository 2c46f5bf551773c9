"""The models of the page: those that this machine has, opened when they are first used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from blip2_train.app.access import Access
from blip2_train.checkpoints.export import MANIFEST, exported_at, read_manifest
from blip2_train.errors import Blip2TrainError, ConfigError
from blip2_train.evaluation.inference import Blip2
from blip2_train.models.image_text import ImageTextModel
from blip2_train.pretrained import load_pretrained
from blip2_train.system.path_names import short_names

AT_ONCE = 2
"""Models in memory: as many as are compared."""
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model to choose."""

    source: str
    """What `load_pretrained` takes."""
    label: str
    """For people."""
    matches_texts: bool | None = None
    """Whether it scores images with texts (stage 1) or generates text by a language model; None = known once opened."""
    of_questions: bool = False
    """Whether it is known to be trained on questions, and so does not describe."""


def newest_exports(outputs: Path) -> list[KnownModel]:
    """The newest export of each recipe below a folder of runs, the newest first; what cannot be read is left out.

    Args:
        outputs: Where runs lie. Those of `outputs`, the folder of the commands, are named `last:<recipe>`.
    """
    newest: list[tuple[float, KnownModel]] = []
    for folder in sorted(path for path in outputs.glob("*") if path.is_dir()):
        manifests = sorted(folder.glob(f"*/export/{MANIFEST}"), key=exported_at)
        if not manifests:
            continue
        try:
            manifest = read_manifest(manifests[-1].parent)
        except Blip2TrainError:
            continue
        named = f"last:{folder.name}" if outputs == Path("outputs") else str(manifests[-1].parent)
        known = KnownModel(
            source=named,
            label=f"{folder.name} (step {manifest.step})",
            matches_texts=manifest.stage == ImageTextModel.stage,
            of_questions="{}" in str(manifest.processor.get("prompt")),
        )
        newest.append((exported_at(manifests[-1]), known))
    return [known for _, known in sorted(newest, key=lambda pair: -pair[0])]


def named_models(sources: Sequence[str]) -> list[KnownModel]:
    """Models by the names that the command was given; a folder is shown by the end of its path, which tells it apart.

    Example:
        >>> [model.label for model in named_models(["last:demo_stage1", "user/model"])]
        ['last:demo_stage1', 'user/model']
    """
    folders = [source for source in sources if Path(source).is_dir()]
    paths = [Path(folder).absolute() for folder in folders]
    names = short_names([str(path.parent if path.name == "export" else path) for path in paths])
    labels = dict(zip(folders, names, strict=True))
    return [KnownModel(source=source, label=labels.get(source, source)) for source in sources]


class Models:
    """Opens models by their names, and keeps the last ones.

    Args:
        known: Those to choose from.
        access: What else may be opened.
        device: As for `load_pretrained`.
        dtype: As for `load_pretrained`.
    """

    def __init__(
        self, known: Sequence[KnownModel], access: Access, device: str = "cpu", dtype: str | None = None
    ) -> None:
        self.known, self.access, self.device, self.dtype = list(known), access, device, dtype
        self._opened: OrderedDict[str, Blip2] = OrderedDict()
        self._made: dict[tuple[str, object], object] = {}
        self._lock = threading.Lock()

    def open(self, name: str | None) -> Blip2:
        """The model of a name, in memory.

        Raises:
            Blip2TrainError: if there is none, or it may not be opened.
        """
        if not (name or "").strip() and not self.known:
            raise ConfigError(
                "no model is chosen, and this machine has none yet: train one (bash run_scripts/pretrain_stage1.sh), "
                "or type a Hugging Face id, an export folder or last:<recipe>"
            )
        source = self.access.check("model", name or "")
        with self._lock:
            if source not in self._opened:
                while len(self._opened) >= AT_ONCE:
                    gone, _ = self._opened.popitem(last=False)
                    self._made = {key: value for key, value in self._made.items() if key[0] != gone}
                self._opened[source], _ = load_pretrained(source, device=self.device, dtype=self.dtype)
            self._opened.move_to_end(source)
            return self._opened[source]

    def made_of(self, name: str | None, make: Callable[[Blip2], Made]) -> Made:
        """What `make` gives for the model of a name, kept until the model goes, or it makes something of another.

        Raises:
            Blip2TrainError: as `open`, and as `make`.
        """
        model = self.open(name)
        key = (name or "").strip(), make
        with self._lock:
            made = self._made.get(key)
        if made is None:
            made = make(model)
            with self._lock:
                others = {other: value for other, value in self._made.items() if other[1] is not make}
                self._made = others | ({key: made} if self._opened.get(key[0]) is model else {})
        return made  # type: ignore[return-value]

    def open_named(self) -> None:
        """Open the first known models, as many as fit, so that what is wrong with them shows, and their kind.

        Raises:
            Blip2TrainError: if one cannot be opened.
        """
        for index, model in enumerate(self.known[:AT_ONCE]):
            kind = self.open(model.source).network.matches_texts
            self.known[index] = replace(model, matches_texts=kind)

    def choices(self, matches_texts: bool | None = None, of_questions: bool = False) -> list[tuple[str, str]]:
        """Label and name of the models to choose from: those that are or may be of a kind.

        Args:
            matches_texts: The kind; None = all, those with a language model first.
            of_questions: Whether those that were trained on questions come first, or last.
        """
        kinds = (None, matches_texts)
        fitting = [model for model in self.known if matches_texts is None or model.matches_texts in kinds]
        fitting.sort(key=lambda model: model.of_questions != of_questions)
        if matches_texts is None:
            fitting.sort(key=lambda model: model.matches_texts is True)
        return [(model.label, model.source) for model in fitting]
