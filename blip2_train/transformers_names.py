"""Names that people know from transformers and from the original code, and what stands for each of them here.

The attributes do not exist here; who asks for one gets an AttributeError that leads on. Of arguments, those values are
accepted that change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LOADING = "b2.load_pretrained(name) gives the model and its processor"
_WRITING = "scripts/convert_checkpoint.py <source> --to <folder> --format huggingface writes it for transformers"

OF_THE_PACKAGE: Mapping[str, str] = {
    "Blip2Processor": _LOADING,
    "Blip2Model": _LOADING,
    "Blip2ForConditionalGeneration": _LOADING,
    "Blip2ForImageTextRetrieval": f"{_LOADING}; model.match(images, texts) scores them",
    "Blip2TextModelWithProjection": f'{_LOADING}; model.embed(texts=…)["text_features"], of unit length',
    "Blip2VisionModelWithProjection": f'{_LOADING}; model.embed(images)["image_features"], of unit length',
    "Blip2VisionModel": f"{_LOADING}; the tower is model.network.vision_model",
    "Blip2QFormerModel": f"{_LOADING}; the Q-Former is model.network.qformer",
    "Blip2Config": "b2.compose([…]) gives a recipe's configuration, b2.VisionConfig and its kind those of single parts",
    "AutoProcessor": _LOADING,
    "AutoTokenizer": _LOADING,
    "AutoModel": _LOADING,
    "AutoModelForImageTextToText": _LOADING,
    "AutoModelForVision2Seq": _LOADING,
    "AutoModelForVisualQuestionAnswering": _LOADING,
    "pipeline": f"{_LOADING}; model.caption(images) and model.answer(images, question) give texts",
    "Trainer": "b2.train(b2.compose([…])) trains",
    "TrainingArguments": "b2.train(b2.compose([…])) trains",
    "BitsAndBytesConfig": 'b2.load_pretrained(name, quantization="int8") or "int4"',
    "load_model_and_preprocess": f"{_LOADING}; a file of the original code is a name, too",
    "load_model": f"{_LOADING}; a file of the original code is a name, too",
}
OF_A_MODEL: Mapping[str, str] = {
    "get_qformer_features": 'model.embed(images)["query_states"] of a generative model, or ["image_states"]',
    "get_image_features": 'model.embed(images)["soft_prompt"] is what a language model reads; of a model without one, '
    '["image_features"] is what is compared with texts',
    "get_text_features": 'model.embed(texts=…)["text_features"] of a model of images and texts',
    "get_placeholder_mask": "generate(**processor(images, text)) puts the queries in place",
    "get_input_embeddings": "model.network.language_model.get_input_embeddings()",
    "get_output_embeddings": "model.network.language_model.get_output_embeddings()",
    "config": "model.network.configs() has the configuration of each part",
    "generation_config": "options of generation are given with each call",
    "dtype": "its parts differ: model.network.language_model.dtype, model.network.vision_model.dtype",
    "num_parameters": "print(model) counts them",
    "get_memory_footprint": "scripts/describe.py --memory counts it, also before a model is loaded",
    "save_pretrained": _WRITING,
    "push_to_hub": "scripts/export.py <run> --push <user>/<name> publishes a run",
    "train": "to train, b2.train(b2.compose([…])); model.network is the torch module",
    "forward": "match(images, texts) gives scores, generate(**inputs) ids of texts, embed(images) features",
    "gradient_checkpointing_enable": "to train, b2.train(b2.compose([…])), with "
    "model.vision.gradient_checkpointing=true where the tower is trained",
    "hf_device_map": "a model is on one device, model.device",
    "extract_features": "model.embed(images, texts=…) gives states and features, with every image and every text",
    "predict_answers": "model.answer(images, questions)",
    "compute_itm": "model.match(images, texts).itm",
}
OF_A_PROCESSOR: Mapping[str, str] = {
    "save_pretrained": _WRITING,
    "push_to_hub": "scripts/export.py <run> --push <user>/<name> publishes a run with its processor",
    "image_processor": "processor.images(images) gives pixel values; processor.image_size, mean and std say how",
    "qformer_tokenizer": "processor.text_tokenizer is the Q-Former's",
    "apply_chat_template": "model.chat(image, turns, message) writes the conversation",
    "post_process_image_text_to_text": "processor.batch_decode(ids, skip_special_tokens=True)",
    "model_input_names": "processor(images, text) gives pixel_values, input_ids and attention_mask",
}
ORIGINAL_WEIGHTS: Mapping[str, str] = {
    "pretrain_opt2.7b": "blip2-opt-2.7b",
    "pretrain_opt6.7b": "blip2-opt-6.7b",
    "caption_coco_opt2.7b": "blip2-opt-2.7b-coco",
    "caption_coco_opt6.7b": "blip2-opt-6.7b-coco",
    "pretrain_flant5xl": "blip2-flan-t5-xl",
    "pretrain_flant5xxl": "blip2-flan-t5-xxl",
    "caption_coco_flant5xl": "blip2-flan-t5-xl-coco",
    "pretrain": "blip2-itm-vit-g",
    "coco": "blip2-itm-vit-g-coco",
}
"""Weights of the original code by its names (`model_type`), and what Salesforce published them as on the hub."""

Values = Mapping[str, tuple[Any, ...]]
"""Of arguments that there are none of here, the values that hold anyway."""
FOR_LOADING: Values = {
    "low_cpu_mem_usage": (True, False),
    "use_safetensors": (True, False),
    "use_fast": (True, False),
    "trust_remote_code": (False,),
}
FOR_A_PROCESSOR: Values = {
    "truncation": (False,),
    "add_special_tokens": (True,),
    "return_attention_mask": (True,),
    "return_token_type_ids": (False,),
    "do_resize": (True,),
    "do_normalize": (True,),
    "do_rescale": (True,),
    "do_convert_rgb": (True,),
}
FOR_GENERATE: Values = {
    "use_cache": (True, False),
    "early_stopping": (False,),
    "return_dict_in_generate": (False,),
    "output_scores": (False,),
    "interpolate_pos_encoding": (False,),
}


def holds_anyway(name: str, value: Any, table: Values) -> bool:
    """Whether an argument changes nothing: it is None, or has a value that holds here.

    Args:
        name: The argument.
        value: Its value.
        table: One of those above.
    """
    return value is None or value in table.get(name, ())


def no_attribute(owner: str, name: str, table: Mapping[str, str], otherwise: str = "") -> AttributeError:
    """The error for a name that is not there.

    Args:
        owner: What has no such name, as the message begins.
        name: The name.
        table: One of those above.
        otherwise: What to do about a name that the table lacks; empty = nothing is known.
    """
    instead = table.get(name, otherwise)
    return AttributeError(f"{owner} has no attribute {name!r}" + (f"; {instead}" if instead else ""))
