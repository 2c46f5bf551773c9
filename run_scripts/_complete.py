"""Exits with 0 if this Python has the project and everything it depends on; an argument names an extra to check too."""

import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement

import blip2_train  # noqa: F401

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
required = project["dependencies"] + project["optional-dependencies"].get("".join(sys.argv[1:]), [])
sys.exit(not all(r.specifier.contains(version(r.name), prereleases=True) for r in map(Requirement, required)))
