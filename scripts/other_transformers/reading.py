"""Reads one folder with whatever transformers there is, and writes down what comes out of it.

Run by its path in another environment (`python reading.py FOLDER IMAGES OUTPUT`), so it needs nothing of this project.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval, Blip2Processor

TEXTS = ["a red apple on a blue ground", "two cats", "a dog to the left of a house"]
PROMPT = "a photo of"


def read(folder: Path, images: list[Image.Image]) -> dict[str, Any]:
    """What a folder gives for images: captions, or scores `(images, texts)`."""
    retrieval = json.loads((folder / "config.json").read_text("utf-8"))["architectures"] == [
        "Blip2ForImageTextRetrieval"
    ]
    processor: Any = Blip2Processor.from_pretrained(folder, trust_remote_code=False)
    kind: Any = Blip2ForImageTextRetrieval if retrieval else Blip2ForConditionalGeneration
    model, loading = kind.from_pretrained(folder, output_loading_info=True, trust_remote_code=False)
    result = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "tokenizer": type(processor.tokenizer).__name__,
        "special tokens": processor.tokenizer.all_special_tokens,
        "keys that do not fit": sorted({*loading["missing_keys"], *loading["unexpected_keys"]}),
    }
    with torch.no_grad():
        if retrieval:
            inputs = processor(images=images, text=TEXTS * len(images), padding=True, return_tensors="pt")
            return result | {"scores": _scores(model.float().eval(), inputs)}
        inputs = processor(images=images, text=[PROMPT] * len(images), return_tensors="pt")
        ids = model.float().eval().generate(**inputs, num_beams=5, max_new_tokens=30)
        plain = processor(images=images, return_tensors="pt")
        more = model.generate(**plain, num_beams=1, max_new_tokens=30)
    texts = [processor.batch_decode(part, skip_special_tokens=True) for part in (ids, more)]
    return result | {"captions": [text.strip() for part in texts for text in part]}


def _scores(model: Any, inputs: Any) -> dict[str, list[list[float]]]:
    images = len(inputs["pixel_values"])
    rows = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    firsts = {name: tensor[: len(TEXTS)] for name, tensor in rows.items()}
    contrast = model(pixel_values=inputs["pixel_values"], **firsts).logits_per_image
    repeated = inputs["pixel_values"].repeat_interleave(len(TEXTS), dim=0)
    match = model(pixel_values=repeated, **rows, use_image_text_matching_head=True).logits_per_image
    probability = match.softmax(dim=1)[:, 1].view(images, len(TEXTS))
    return {"itc": contrast.tolist(), "itm": probability.tolist()}


def main(folder: str, images: str, output: str) -> None:
    """Read, and write JSON."""
    opened = [Image.open(path).convert("RGB") for path in sorted(Path(images).glob("*.png"))]
    Path(output).write_text(json.dumps(read(Path(folder), opened)), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
