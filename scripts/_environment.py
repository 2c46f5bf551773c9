"""Imported first by the scripts: they go on in `.venv` beside the README if this Python lacks the project.

So `python scripts/train.py` works as the pages have it, without an activated environment, once `bash run_scripts/…` has
made one; before that, one line says how. Needs nothing but Python, also an old one.
"""

import os
import sys
from importlib.util import find_spec

NEEDED = ("blip2_train", "torch", "transformers", "timm", "lightning", "hydra")
"""Packages without which no command starts."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
TRIED = "BLIP2_IN_VENV"
"""Variable that tells a Python that it was started by this module."""


def _is_there() -> bool:
    """Whether this is the Python of `.venv`."""
    return os.path.realpath(sys.prefix) == os.path.realpath(VENV)


def go_on_where_the_project_is() -> None:
    """Nothing if this Python has the project; else start again in `.venv`, or end with one line and exit code 2."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    python = os.path.join(VENV, "bin", "python")
    if not missing:
        return
    if os.environ.pop(TRIED, None) is None and os.access(python, os.X_OK) and not _is_there():
        os.environ[TRIED] = "1"  # or a .venv that is none would be started for ever
        os.execv(python, [python, *sys.argv])
    install = "python3 -m venv .venv && .venv/bin/python -m pip install -e ."
    sys.stderr.write(
        f"error: {sys.executable} (Python {sys.version.split()[0]}) has no {', '.join(missing)}: `bash run_scripts/"
        f"pretrain_stage1.sh` installs everything into .venv and trains a first model; without that: {install}\n"
    )
    sys.exit(2)


go_on_where_the_project_is()
