"""What the operating system refuses, and what a person can do, as the part of an error that one line takes."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from blip2_train.system.error_reasons import reason_of

_ROOM = "make room there, or write to another disk (paths.output_dir=…)"
_RIGHTS = "it needs other rights, or name another path (for what is written: paths.output_dir=…)"
_NO_FOLDER = "a file is where a folder has to be; name another path, or move that file away"
_FIXES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), _NO_FOLDER),
    errno.ENAMETOOLONG: "a name of a file may have 255 bytes; give a shorter one",
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.EFBIG: "allow larger files (ulimit -f), or write to a disk that takes them",
    errno.EIO: "the disk does not read or write; look into the system's log",
}
_IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How the Rust of safetensors names the number of a system's error."""


def system_error_line(error: Exception) -> str | None:
    """The line for an error of the system or of a service that a person can mend; None for any other error."""
    library = type(error).__module__.partition(".")[0]
    if library == "wandb":
        return (
            f"Weights & Biases: {reason_of(error)}; log in (wandb login, or WANDB_API_KEY), keep the run on this "
            "machine (logger.wandb.offline=true), or pass logger=csv"
        )
    match = _IN_TEXT.search(str(error)) if library.startswith("safetensors") else None
    number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
    if isinstance(error, RuntimeError) and "PytorchStreamWriter failed writing" in str(error):  # of torch.save
        return f"weights could not be written, the disk is full or fails: {_ROOM}"
    if number in (errno.ENOTDIR, errno.EEXIST) and isinstance(error, OSError) and (file := _file_above(error)):
        return f"{error.filename} cannot be made: {file} is a file, not a folder; name another path, or move it away"
    return None if number not in _FIXES else f"{error}: {_FIXES[number]}"


def _file_above(error: OSError) -> Path | None:
    """The file at or above a path that has to be a folder."""
    path = Path(os.fsdecode(error.filename or ""))
    return next((folder for folder in (path, *path.parents) if folder.is_file()), None)
