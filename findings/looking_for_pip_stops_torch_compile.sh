#!/usr/bin/env bash
# setuptools on Python 3.11: after importlib.util.find_spec("pip") no import of setuptools works, so neither does torch.compile.
#
# The guess: `find_spec` looks whether a package is there and changes nothing, so a program may look for pip, to tell a
# user what to install or to skip a test, and use any library afterwards.
# What happens: setuptools puts a finder in front of all others when Python starts, and a look for pip tells it that pip
# runs: from then on it leaves the standard library's distutils in place. The first `import setuptools` after that fails
# with an AssertionError that names distutils/core.py and neither pip nor who looked for it. torch's C++ compiler front
# end imports setuptools, so with the default backend `torch.compile` fails in that process, minutes later and elsewhere.
# An import of setuptools before the look prevents it; `importlib.metadata` tells whether pip is there and has no such
# effect. On Python 3.12, which has no distutils, nothing happens.
# Needs Python 3.11 (PYTHON names it) and pip; no GPU, no torch, about 20 MB in a temporary folder. Ends with 1 if that
# changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile setuptools==84.2.1 \
  >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/look.py" <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version

print("Python", sys.version.split()[0], "setuptools", version("setuptools"))
print("guess: setuptools can be imported in all four programs")
PROGRAMS = {
    "nothing before": "import setuptools",
    "find_spec('pip') before": "import importlib.util; importlib.util.find_spec('pip'); import setuptools",
    "find_spec('pip') after": "import importlib.util, setuptools; importlib.util.find_spec('pip'); import setuptools",
    "importlib.metadata before": "import importlib.metadata as m; m.distribution('pip'); import setuptools",
}
seen = {}
for name, program in PROGRAMS.items():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    last = (done.stderr.strip().splitlines() or ["imported"])[-1]
    seen[name] = done.returncode
    print(f"seen: {name}: {last.replace(sys.base_prefix, '<Python>')}")
old = sys.version_info < (3, 12)
expected = {name: int(old and name == "find_spec('pip') before") for name in PROGRAMS}
sys.exit(0 if seen == expected else "setuptools behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/look.py"
