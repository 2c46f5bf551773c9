# Sourced first: sets ROOT, and PYTHON to one that has the project; if none has, makes .venv beside the README. EXTRA=dev adds that extra.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
complete() { "$1" -P "$ROOT/run_scripts/_complete.py" "${EXTRA:-}" >/dev/null 2>&1; }
usable() { "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1; }

for PYTHON in python python3 "$ROOT/.venv/bin/python" ""; do [ -z "$PYTHON" ] || ! complete "$PYTHON" || break; done
if [ -z "$PYTHON" ]; then
  for base in python3 python3.13 python3.12 python3.11 python ""; do [ -z "$base" ] || ! usable "$base" || break; done
  [ -n "$base" ] || { echo "error: no Python 3.11, 3.12 or 3.13 with venv found; install one (Debian: python3 and python3-venv)" >&2; exit 2; }
  case " $* " in *" --help "* | *" -h "*) { read -r; read -r about; } <"$0"; echo "${about#\# }"; echo "(not all that it needs is installed: a start without --help does that, into $ROOT/.venv; then --help shows all options)"; exit 0 ;; esac
  if EXTRA="" complete "$ROOT/.venv/bin/python"; then what="what the extra $EXTRA adds"; else what="the project"; size="; some minutes and 6 to 7 GB, most of it PyTorch"; fi; echo "installing $what into $ROOT/.venv (once${size:-})" >&2
  PYTHON="$ROOT/.venv/bin/python"
  { usable "$PYTHON" && "$PYTHON" -m pip --version >/dev/null 2>&1; } || "$base" -m venv --clear "$ROOT/.venv"
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable "$ROOT${EXTRA:+[$EXTRA]}"
fi
