"""What a source says that its classes and functions take, beside what Python says once they are imported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blip2_train.config import source_signatures
from blip2_train.config.source_signatures import DescribedFunction, described
from blip2_train.config.strict_keys import arguments_of, find_target

ROOT = Path(__file__).parents[3]
TARGETS = sorted(
    {
        name
        for file in (ROOT / "configs").rglob("*.yaml")
        for name in re.findall(r"_target_: (blip2_train[\w.]+)", file.read_text("utf-8"))
    }
)


class NothingLoaded:
    """Stands for `sys` where nothing has been imported yet."""

    modules: dict[str, object] = {}  # noqa: RUF012
    stdlib_module_names = source_signatures.sys.stdlib_module_names


def names_of(annotations: dict[str, object]) -> dict[str, str]:
    """Annotations as text, classes without their modules."""
    return {
        name: re.sub(r"[\w.]+\.(\w+)", r"\1", re.sub(r"<class '([^']+)'>", r"\1", str(annotation)))
        for name, annotation in annotations.items()
    }


@pytest.mark.parametrize("target", TARGETS)
def test_source_and_import_say_the_same(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_signatures, "sys", NothingLoaded)
    source = described.__wrapped__(target)
    real = arguments_of(find_target("", target))
    if source is None:
        assert hasattr(find_target("", target), "__dataclass_fields__"), "has to be imported"
        return
    assert source.arguments.required == real.required and source.arguments.takes_any == real.takes_any
    assert names_of(source.arguments.annotations) == names_of(real.annotations)


def test_what_is_not_plain_is_imported() -> None:
    for name in ("blip2_train.absent.X", "lightning.pytorch.loggers.WandbLogger", "blip2_train.training.module.Absent"):
        assert described.__wrapped__(name) is None
    assert described.__wrapped__("blip2_train.config.strict_keys.find_target") is None  # imported already


def test_a_description_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="cannot be called"):
        DescribedFunction(arguments_of(find_target("", "blip2_train.config.strict_keys.find_target")))()
