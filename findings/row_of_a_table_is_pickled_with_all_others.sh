#!/usr/bin/env bash
# pyarrow: one row of a table, pickled, takes all rows of its table with it.
#
# The guess: a slice of one row, handed to another process (a queue of a DataLoader, a task of Ray), is as large as the
# row.
# What happens: a slice is a window on the buffers of its table; pickle writes the whole buffers and the window. One
# image of a row group of 1,000 is sent with the other 999, and who sends the rows one by one sends the group 1,000
# times. `nbytes` says the small number, an IPC stream of the slice has it, and so has the pickle of what `take` copies.
# Needs Python 3.11 or newer and pip; no GPU, no torch, about 150 MB in a temporary folder. Ends with 1 if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile pyarrow==26.0.1 \
  >"$work/pip" 2>&1 || { cat "$work/pip" >&2; exit 2; }
cat >"$work/send.py" <<'PYTHON'
import pickle
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

print("pyarrow", pa.__version__)
print("guess: a row of 20,000 bytes is pickled as about 20,000 bytes")
random.seed(0)
pq.write_table(pa.table({"image": [random.randbytes(20_000) for _ in range(1000)]}), sys.argv[1], row_group_size=1000)
table = pq.read_table(sys.argv[1])
row = table.slice(500, 1)
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, row.schema) as stream:
    stream.write_table(row)
sizes = {
    "slice(500, 1), nbytes": row.nbytes,
    "slice(500, 1), as an IPC stream": sink.getvalue().size,
    "slice(500, 1), pickled": len(pickle.dumps(row, protocol=5)),
    "take([500]), pickled": len(pickle.dumps(table.take([500]), protocol=5)),
    "the whole table, pickled": len(pickle.dumps(table, protocol=5)),
}
for name, size in sizes.items():
    print(f"seen: {name}: {size:,} bytes")
small = all(sizes[name] < 25_000 for name in list(sizes)[:2] + ["take([500]), pickled"])
as_found = small and sizes["slice(500, 1), pickled"] > 1_000_000
sys.exit(0 if as_found else "pyarrow behaves in another way than this finding says")
PYTHON
"$work/venv/bin/python" "$work/send.py" "$work/images.parquet"
