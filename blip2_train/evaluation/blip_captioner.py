"""Sampled captions by BLIP, the model before BLIP-2, whose largest captioner wrote BLIP-2's synthetic captions.

Shape letters: B images, N captions of each, P patches with class token, D hidden, S tokens of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.evaluation.caption_sampling import by_image, draws
from blip2_train.evaluation.prompts import caption_prompt
from blip2_train.evaluation.qformer_captions import decode_word_pieces
from blip2_train.from_transformers import load_model, load_processor
from blip2_train.models.configs import GenerationOptions
from blip2_train.models.dtypes import DTYPES
from blip2_train.models.nucleus_sampling import NucleusSampling
from blip2_train.system.error_reasons import reason_of

PROMPT = "a picture of"
"""With which BLIP's captioners were trained; source: configuration of BLIP's released code."""


class BlipCaptioner:
    """Captions by a captioning BLIP of transformers (BLIP-2, section 3.4: BLIP-large).

    Args:
        folder: With the model's and the processor's files.
        device: Device of the model.
        prompt: Beginning of the captions; None = `PROMPT`.
        dtype: `float32`, `float16` or `bfloat16`; None = `float32`.

    Raises:
        CheckpointMismatch: if the folder holds no whole captioning BLIP.
        ConfigError: if the prompt cannot be used.
    """

    def __init__(self, folder: Path, device: torch.device, prompt: str | None = None, dtype: str | None = None) -> None:
        from transformers import BlipForConditionalGeneration, BlipProcessor

        start = caption_prompt(PROMPT if prompt is None else prompt)
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}")
        remedy = "give blip:<folder or hub id of a captioning BLIP>, as Salesforce/blip-image-captioning-large"
        try:
            model, info = load_model(
                BlipForConditionalGeneration,
                folder,
                local_files_only=True,
                output_loading_info=True,
                dtype=DTYPES[dtype or "float32"],
            )
            processor: Any = load_processor(BlipProcessor, folder, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise CheckpointMismatch(
                f"captioner {folder} is no captioning BLIP ({reason_of(error)}); {remedy}"
            ) from None
        if missing := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
            raise CheckpointMismatch(f"captioner {folder} lacks {missing[0]}, {len(missing)} weights in all; {remedy}")
        if any(str(name).startswith("text_encoder.") for name in info["unexpected_keys"]):
            raise CheckpointMismatch(f"captioner {folder} is a BLIP that reads questions; {remedy}")
        self._model: Any = model.to(device).eval()
        self._images, self._tokenizer = processor.image_processor, processor.tokenizer
        words = self._tokenizer(start, add_special_tokens=False).input_ids
        self._start = torch.tensor([model.config.text_config.bos_token_id, *words], device=device)

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Image.Image], seeds: Sequence[int], count: int, options: GenerationOptions
    ) -> list[list[str]]:
        """N captions of each of B images.

        Raises:
            ConfigError: if so many new tokens are more than the model can generate.
        """
        from transformers import GenerationConfig, LogitsProcessorList

        text, device = self._model.config.text_config, self._start.device
        if len(self._start) + options.max_new_tokens > text.max_position_embeddings:
            raise ConfigError(
                f"max_new_tokens {options.max_new_tokens} behind a prompt of {len(self._start)} tokens is more than "
                f"the {text.max_position_embeddings} of this BLIP; give fewer"
            )
        read = self._images(images=list(images), return_tensors="pt").pixel_values
        seen = self._model.vision_model(pixel_values=read.to(device)).last_hidden_state  # (B, P, D)
        decoder = self._model.text_decoder
        decoder.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # whole: nothing else counts
            do_sample=True,
            num_beams=1,
            num_return_sequences=count,
            min_new_tokens=options.min_new_tokens,
            max_new_tokens=options.max_new_tokens,
            top_k=0,
            top_p=1.0,
            eos_token_id=text.sep_token_id,
            pad_token_id=text.pad_token_id,
        )
        given = draws(seeds, count, options.max_new_tokens).flatten(0, 1).to(device)
        start = self._start.expand(len(images), -1)  # (B, S)
        generated = decoder.generate(
            input_ids=start,
            attention_mask=torch.ones_like(start),
            encoder_hidden_states=seen,
            encoder_attention_mask=seen.new_ones(seen.shape[:2], dtype=torch.long),
            logits_processor=LogitsProcessorList([NucleusSampling(given, options.top_p, options.temperature)]),
            trust_remote_code=False,
        )
        return by_image([self._decoded(row) for row in generated[:, len(self._start) :].tolist()], count)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the model."""
        return dict(self._model.state_dict())

    def _decoded(self, ids: list[int]) -> str:
        end = self._model.config.text_config.sep_token_id
        words = ids[: ids.index(end)] if end in ids else ids
        return decode_word_pieces(self._tokenizer, words)
