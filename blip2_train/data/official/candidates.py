"""Reads lists of candidate answers: `answer_list.json` of VQAv2, or one answer per line."""

from __future__ import annotations

from pathlib import Path

from blip2_train.data.annotations.json_content import missing_file, read_json
from blip2_train.errors import ShardError

FORM = '["yes", "no", …]'


def read_candidates(path: str | Path) -> list[str]:
    """The answers of a list without surrounding blanks, in its order, without repetitions.

    Args:
        path: A JSON list, if the extension is `.json`; else a text file with one answer per line, in which blank lines
            are skipped.

    Raises:
        ShardError: if the file is missing, cannot be read, or holds no such list.
    """
    if Path(path).suffix == ".json":
        answers = read_json(Path(path), FORM)
        if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
            raise ShardError(f"answer list {path} is not of the form {FORM}; give such a list, or one answer a line")
    else:
        try:
            answers = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            raise missing_file("answer list", path) from None
        except OSError as error:
            raise ShardError(f"answer list {path} cannot be read ({error.strerror}); give a text file") from None
        except UnicodeDecodeError:
            raise ShardError(f"answer list {path} is no UTF-8 text; save it as UTF-8, one answer a line") from None
    candidates = list(dict.fromkeys(stripped for answer in answers if (stripped := answer.strip())))
    if not candidates:
        raise ShardError(f"answer list {path} holds no answer; write one a line")
    return candidates
