"""Folders that ask for code of their own, and a child that tries to open them in every way there is.

The code does no more than to write a file, which must not appear.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

MARKER = "was_run"
_FILE = "code_beside_it"
_CLASSES = {
    "AutoConfig": "Configuration",
    "AutoModelForCausalLM": "Model",
    "AutoModelForSeq2SeqLM": "Model",
    "AutoTokenizer": ["Tokenizer", "Tokenizer"],
    "AutoProcessor": "Processor",
    "AutoImageProcessor": "Processor",
}


def change_json(path: Path, **values: Any) -> None:
    """Set values of a JSON file, which may not be there."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


def folder_with_code(original: Path, folder: Path, **config: Any) -> Path:
    """A copy of a folder whose files all ask for the code that lies beside them; `config` changes its config.json."""
    shutil.copytree(original, folder)
    code = f"import pathlib\npathlib.Path({str(folder.parent / MARKER)!r}).write_text('')\n"
    code += "".join(f"class {name}: pass\n" for name in ("Configuration", "Model", "Tokenizer", "Processor"))
    (folder / f"{_FILE}.py").write_text(code)
    named = {
        kind: [f"{_FILE}.{name}" for name in classes] if isinstance(classes, list) else f"{_FILE}.{classes}"
        for kind, classes in _CLASSES.items()
    }
    change_json(folder / "config.json", auto_map=named, **config)
    change_json(folder / "tokenizer_config.json", auto_map=named, tokenizer_class="NobodysTokenizer")
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            change_json(
                folder / name, auto_map=named, image_processor_type="Nobodys", processor_class="NobodysProcessor"
            )
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code)
    return folder


def open_in_every_way(language: str, blip2: str, clip: str, blip: str) -> None:
    """Print a line for each way in: its name, and the error or `opened`."""
    import torch

    from blip2_train.checkpoints.convert.huggingface_config import read_config, special_tokens
    from blip2_train.checkpoints.pretrained import open_pretrained
    from blip2_train.data.batches.language_tokenizer import LanguageTokenizer
    from blip2_train.data.batches.qformer_tokenizer import load_text_tokenizer
    from blip2_train.evaluation.blip_captioner import BlipCaptioner
    from blip2_train.evaluation.pair_scoring import ClipScorer
    from blip2_train.models.configs import LanguageModelConfig
    from blip2_train.models.language_model import build_language_model, language_model_architecture

    named = LanguageModelConfig(name=language, weights="random")
    ways = {
        "architecture": lambda: language_model_architecture(named),
        "build": lambda: build_language_model(named),
        "tokenizer": lambda: LanguageTokenizer(language, padding_side="left", encoder_decoder=False),
        "text tokenizer": lambda: load_text_tokenizer(language),
        "blip2 config": lambda: read_config(Path(blip2)),
        "blip2 tokenizer": lambda: special_tokens(Path(blip2), read_config(Path(blip2)).text_config),
        "blip2": lambda: open_pretrained(blip2),
        "clip": lambda: ClipScorer(Path(clip), torch.device("cpu")),
        "blip": lambda: BlipCaptioner(Path(blip), torch.device("cpu")),
    }
    for name, way in ways.items():
        try:
            way()
            print(f"{name}: opened", flush=True)
        except BaseException as error:  # of any kind: the line names it
            print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}", flush=True)


def answer(how: str) -> None:
    """Give this process a standard input that answers yes to everything, or none."""
    if how == "closed":
        os.close(0)
        sys.stdin = None  # type: ignore[assignment]  # as Python has it where there is none
        return
    read, write = os.pipe()
    os.write(write, b"y\n" * 99)
    os.dup2(read, 0)
    sys.stdin = os.fdopen(0)


if __name__ == "__main__":
    answer(sys.argv[1])
    open_in_every_way(*sys.argv[2:])
