"""Code written for transformers: both columns of the table give the same, and what is refused says what is here."""

from __future__ import annotations

import ast
import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from foreign_models import save_theirs, their_model
from PIL import Image
from torch import Tensor

import blip2_train as b2
from blip2_train.checkpoints.transformers_arguments import _ELSEWHERE, translated
from blip2_train.errors import CheckpointMismatch, ConfigError
from blip2_train.models.quantization import QuantizedLinear
from blip2_train.transformers_names import OF_A_MODEL, OF_A_PROCESSOR, OF_THE_PACKAGE, ORIGINAL_WEIGHTS

PAGE = (Path(__file__).parents[2] / "docs/published-weights.md").read_text("utf-8")
TABLE = PAGE.split("## What you wrote with transformers")[1].split("## ")[0]
ROWS = re.findall(r"^\| (.*`.*) \| (.*`.*) \|$", TABLE, re.M)
QUANTIZED = "BitsAndBytesConfig"
CPU = {"device": "cpu", "dtype": None, "quantization": "none"}


def images() -> list[Image.Image]:
    """Of the model's size, so that no resizer rounds differently."""
    draw = torch.Generator().manual_seed(5)
    coarse = torch.randint(0, 256, (2, 8, 8, 3), generator=draw, dtype=torch.uint8)
    return [Image.fromarray(one.repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()) for one in coarse]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A folder of transformers' format with random weights, by kind."""
    root = tmp_path_factory.mktemp("published")

    def of(kind: str) -> str:
        if not (root / kind).exists():
            save_theirs(their_model(kind), kind, root / kind)
        return str(root / kind)

    return of


def names(name: str) -> dict[str, Any]:
    known = {key: getattr(transformers, key) for key in dir(transformers) if key.startswith(("Blip2", "BitsAnd"))}
    known["TextIteratorStreamer"] = transformers.TextIteratorStreamer
    return known | {"torch": torch, "b2": b2, "name": name, "image": images()[0], "texts": ["a red cat", "two dogs"]}


def run(code: list[str], known: dict[str, Any]) -> Any:
    """Run statements; the value of the last, if it is an expression."""
    result = None
    torch.manual_seed(3)
    for text in code:
        try:
            result = eval(compile(ast.parse(text, mode="eval"), "<page>", "eval"), known)
        except SyntaxError:
            result = exec(text, known)
    return result


def spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def loaded(model: Any) -> dict[str, Any]:
    """What a model was asked to be."""
    network = getattr(model, "network", model)
    return {"dtype": network.language_model.dtype, "tower": network.vision_model.dtype, "device": str(model.device)}


def same(left: Any, right: Any) -> None:
    if isinstance(left, Tensor):
        if left.dtype == torch.int64:
            assert left.tolist() == right.tolist()
        else:
            torch.testing.assert_close(right.to(left.dtype), left, rtol=1e-3, atol=2e-3)
    elif hasattr(left, "language_model"):
        assert loaded(left) == loaded(right)
    elif hasattr(left, "keys"):
        assert set(left.keys()) == set(right.keys())
        for key in left:
            same(left[key], right[key])
    else:
        assert left == right


@pytest.mark.slow
@pytest.mark.parametrize(("left", "right"), ROWS, ids=[spans(left)[-1][:60] for left, _ in ROWS])
def test_both_columns_give_the_same(left: str, right: str, folder: Callable[[str], str]) -> None:
    kind = "retrieval" if "Retrieval" in left or "WithProjection" in left else "opt"
    theirs, ours = names(folder(kind)), names(folder(kind))
    loading = spans(left)[-1].startswith("model = ")
    if not loading:
        theirs["processor"] = transformers.Blip2Processor.from_pretrained(folder(kind))
        name = "Blip2ForImageTextRetrieval" if kind == "retrieval" else "Blip2ForConditionalGeneration"
        theirs["model"] = getattr(transformers, name).from_pretrained(folder(kind)).eval()
        ours["model"], ours["processor"] = b2.load_pretrained(folder(kind), device="cpu")
        for known in (theirs, ours):
            text = known["texts"] if kind == "retrieval" else "a photo of"
            given = [known["image"]] * 2 if kind == "retrieval" else known["image"]
            known["inputs"] = known["processor"](images=given, text=text, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected, actual = run(spans(left), theirs), run(spans(right), ours)
    if QUANTIZED in left:
        assert any(isinstance(module, QuantizedLinear) for module in ours["model"].network.modules())
        return
    if loading:
        same(theirs["model"], ours["model"])
        return
    assert expected is not None and actual is not None
    same(expected, actual)


def test_the_table_covers_what_published_cards_use() -> None:
    left = " ".join(left for left, _ in ROWS)
    for name in (
        "from_pretrained", "torch_dtype=", "dtype=", "device_map=", "load_in_8bit", "load_in_4bit", "processor(",
        "generate(", "batch_decode", ".to(", ".half()", "num_beams=", "max_length=", "max_new_tokens=", "top_k=",
        "top_p=", "num_return_sequences=", "use_image_text_matching_head=True", "use_image_text_matching_head=False",
        "get_qformer_features", "get_image_features", "Streamer",
    ):  # fmt: skip
        assert name in left, name
    assert len(ROWS) > 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opt", "t5"])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"max_new_tokens": 7}, {"num_beams": 3, "length_penalty": -1.0}, {"do_sample": True}, {"max_length": 30},
        {"num_beams": 4, "num_return_sequences": 3}, {"min_length": 18, "max_length": 24},
        {"max_length": 9, "max_new_tokens": 12},
        {"do_sample": True, "top_k": 5, "top_p": 0.9, "temperature": 0.7, "num_return_sequences": 2},
    ],
    ids=str,
)  # fmt: skip
def test_generated_ids_equal(kind: str, options: dict[str, Any], folder: Callable[[str], str]) -> None:
    theirs = transformers.Blip2ForConditionalGeneration.from_pretrained(folder(kind)).eval()
    reader = transformers.Blip2Processor.from_pretrained(folder(kind))
    model, processor = b2.load_pretrained(folder(kind), device="cpu")
    model.network.ln_vision.eps = 1e-6
    for text in (None, ["a photo of", "a dog and"])[kind == "t5" :]:  # where theirs reads no bos_token_id from a T5
        expected_inputs = reader(images=images(), text=text, return_tensors="pt", padding=True)
        inputs = processor(images=images(), text=text)
        same(dict(expected_inputs), dict(inputs))
        torch.manual_seed(2)
        expected = theirs.generate(**expected_inputs, **options)
        torch.manual_seed(2)
        actual = model.generate(**inputs, **options)
        assert actual.tolist() == expected.tolist()
        texts = reader.batch_decode(expected, skip_special_tokens=True)
        assert processor.batch_decode(actual, skip_special_tokens=True) == texts
        assert len(set(actual.flatten().tolist())) > 3


def test_what_generate_cannot_do_is_one_line(folder: Callable[[str], str]) -> None:
    model, processor = b2.load_pretrained(folder("opt"), device="cpu")
    inputs = processor(images=images()[0], text="a photo of")
    for options, words in (
        ({"max_length": 6}, r"max_length 6 leaves no room behind the \d+ tokens of queries and prompt"),
        (
            {"repetition_penalty": 1.5},
            r"repetition_penalty counts the prompt in transformers .* and not here; use model\.caption",
        ),
        ({"early_stopping": True}, "early_stopping' is unknown; a search goes on .* as early_stopping=False does"),
        ({"generation_config": object()}, "generation_config' is unknown; give its values one by one"),
        ({"no_repeat_ngram_size": 2}, "generation option 'no_repeat_ngram_size' is unknown"),
        ({"max_lenght": 20}, "generation option 'max_lenght' is unknown; did you mean max_length"),
        ({"penalty_alpha": 0.5}, "is unknown; there are num_beams, .*max_length, min_length"),
        ({"num_return_sequences": 2}, "num_return_sequences 2 needs as many beams, or do_sample=True"),
        ({"top_k": 5}, "top_k 5 changes nothing without do_sample=True"),
        ({"input_ids": inputs["input_ids"] + 1}, "input_ids are not those of this model"),
        ({"input_ids": inputs["input_ids"].repeat(2, 1)}, r"1 images, but input_ids of shape \(2, "),
        ({"pixel_values": torch.zeros(1, 3, 8, 8)}, r"pixel_values have shape \(1, 3, 8, 8\), this model reads"),
        (
            {"pixel_values": {"image": inputs["pixel_values"]}},
            r"tensors of a processor, .*, and no dict; model\.caption",
        ),
        ({"use_nucleus_sampling": True}, "use_nucleus_sampling' is unknown; do_sample=True samples"),
        ({"num_captions": 3}, "num_captions' is unknown; num_return_sequences is the number"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.generate(**(dict(inputs) | options))
    alone = {"input_ids": inputs["input_ids"][:, 4:], "pixel_values": inputs["pixel_values"]}
    assert model.generate(**alone).tolist() == model.generate(**inputs)[:, 4:].tolist()  # without placeholders, too
    with pytest.raises(ConfigError, match="neither images nor text is given"):
        processor()
    with pytest.raises(ConfigError, match=r"1 images, but 2 texts; .*\(model\.match scores each of some images"):
        processor(images()[0], ["a", "b"])
    with pytest.raises(ConfigError, match="return_tensors='np', padding=True: this processor gives torch's tensors"):
        processor(images()[0], return_tensors="np")
    with pytest.raises(ConfigError, match=r"this processor has no max_length=20; leave it out: .* prompts never"):
        processor(images()[0], "a photo of", max_length=20)
    usual = {"truncation": False, "add_special_tokens": True, "max_length": None}
    same(dict(inputs), dict(processor(images()[0], "a photo of", **usual)))
    with pytest.raises(ConfigError, match="device 'cuda:99' is not there on this machine"):
        inputs.to(99)
    moved = inputs.to(device="auto", dtype=torch.float64)
    assert moved["pixel_values"].dtype == torch.float64 and moved["input_ids"].dtype == torch.int64
    inputs.to("cpu", torch.float32)
    with pytest.raises(ConfigError, match="generation option 'max_length' is unknown; max_new_tokens counts the new"):
        model.caption(images(), max_length=20)
    usual = {"use_cache": True, "early_stopping": False}
    assert model.generate(**inputs, **usual).tolist() == model.generate(**inputs).tolist()
    spaces = {"clean_up_tokenization_spaces": True}
    assert processor.batch_decode(inputs["input_ids"], **spaces) == ["</s>a photo of"]
    with pytest.raises(ConfigError, match="generate needs a generative model"):
        b2.load_pretrained(folder("retrieval"), device="cpu")[0].generate(inputs["pixel_values"])


@pytest.mark.slow
def test_a_loaded_model_changes_its_precision_and_device(folder: Callable[[str], str]) -> None:
    model, processor = b2.load_pretrained(folder("opt"))
    expected = model.caption(images(), num_beams=1)
    assert model.half() is model and loaded(model)["dtype"] == loaded(model)["tower"] == torch.float16
    assert model.network.query_tokens.dtype == torch.float32 and len(model.caption(images())) == 2
    assert model.network.configs()["language"].dtype == model.network.configs()["vision"].dtype == "float16"
    assert len(model.generate(**processor(images()).to("cpu", torch.float16))) == 2
    assert loaded(model.bfloat16())["dtype"] == torch.bfloat16 and loaded(model.float())["dtype"] == torch.float32
    assert model.to("cpu").eval().cpu() is model and model.to("cpu", torch.float32).device.type == "cpu"
    assert len(model.caption(images(), num_beams=1)) == len(expected)
    with pytest.raises(ConfigError, match="dtype int8 is unknown"):
        model.to(torch.int8)
    with pytest.raises(ConfigError, match=r"device 'cuda:99' is not there on this machine"):
        model.to(99)
    with pytest.raises(ConfigError, match="language model t5 overflows in it"):
        b2.load_pretrained(folder("t5"))[0].half()


def test_names_of_transformers_lead_to_ours(folder: Callable[[str], str]) -> None:
    model, processor = b2.load_pretrained(folder("opt"), device="cpu")
    for thing, table in ((b2, OF_THE_PACKAGE), (model, OF_A_MODEL), (processor, OF_A_PROCESSOR)):
        for name, instead in table.items():
            assert not hasattr(thing, name)
            with pytest.raises(AttributeError) as caught:
                getattr(thing, name)
            assert str(caught.value).endswith(f" has no attribute {name!r}; {instead}")
    for theirs, inside in (("language_model", True), ("state_dict", True), ("nonsense", False), ("_nonsense", False)):
        with pytest.raises(AttributeError) as caught:
            getattr(model, theirs)
        assert (f"; model.network.{theirs} is it" in str(caught.value)) is inside
    assert copy.copy(model).network is model.network and repr(copy.deepcopy(processor)) == repr(processor)


def test_what_the_names_lead_to_is_there(folder: Callable[[str], str]) -> None:
    known: dict[str, Any] = {"b2": b2}
    for kind in ("opt", "retrieval"):
        known["model"], known["processor"] = b2.load_pretrained(folder(kind), device="cpu")
        for instead in {**OF_A_MODEL, **OF_A_PROCESSOR, **OF_THE_PACKAGE}.values():
            for path in re.findall(r"\b(?:b2|model|processor)(?:\.\w+)+", instead):
                if not path.startswith("model.vision.") and not (kind == "retrieval" and "language_model" in path):
                    eval(path, known)  # an AttributeError otherwise


def test_calls_of_the_original_code_are_translated_by_the_page(folder: Callable[[str], str]) -> None:
    text = PAGE.split("## What you wrote with the original code")[1].split("\n#")[0]
    rows = re.findall(r"^\| (.*`.*) \| (.*`.*) \|$", text, re.M)
    assert len(rows) == 10
    generative, retrieval = (b2.load_pretrained(folder(kind), device="cpu")[0] for kind in ("opt", "retrieval"))
    for left, right in rows:
        matching = any(name in left for name in ("compute_itm", "match_head", "extract_features"))
        known = names(folder("opt")) | {"model": retrieval if matching else generative}
        known |= {"text": "a cat", "question": "what is it?"}
        assert run(spans(right), known) is not None


def test_names_of_the_original_codes_weights_lead_to_the_hub() -> None:
    section = PAGE.split("### Names of weights")[1].split("\n#")[0]
    written = set(re.findall(r"`([a-z]\w*[\w.]*)`", section))
    assert ORIGINAL_WEIGHTS.keys() <= written
    for name, published in ORIGINAL_WEIGHTS.items():
        assert (
            f"`{published.removesuffix('-coco')}`" in PAGE
            and f"Salesforce/{published.removesuffix('-coco')}" in section
        )
        with pytest.raises(CheckpointMismatch, match=rf"there is no {name}; .* are Salesforce/{published}$"):
            b2.load_pretrained(name)


def test_without_text_a_start_token_is_what_the_tokenizer_writes(folder: Callable[[str], str], tmp_path: Path) -> None:
    """transformers writes that of the configuration; with text="" both write none where texts start with none."""
    shutil.copytree(folder("opt"), tmp_path / "bare")
    tokenizer = json.loads((tmp_path / "bare/tokenizer.json").read_text()) | {"post_processor": None}
    (tmp_path / "bare/tokenizer.json").write_text(json.dumps(tokenizer))
    name = str(tmp_path / "bare")
    reader = transformers.Blip2Processor.from_pretrained(name)
    theirs = transformers.Blip2ForConditionalGeneration.from_pretrained(name).eval()
    model, processor = b2.load_pretrained(name, device="cpu")
    inputs = reader(images=images()[0], text="", return_tensors="pt")
    expected = theirs.generate(**inputs, max_new_tokens=6)
    assert model.generate(**processor(images()[0]), max_new_tokens=6).tolist() == expected.tolist()
    del inputs["input_ids"], inputs["attention_mask"]
    assert theirs.generate(**inputs, max_new_tokens=6).tolist() != expected.tolist()


def refused_on_the_page() -> set[str]:
    text = PAGE.split("### What is refused")[1].split("\n#")[0]
    return {name for line in text.splitlines() if line.startswith("| `") for name in spans(line.split("|")[1])}


def test_arguments_that_are_refused_are_those_of_the_page(folder: Callable[[str], str]) -> None:
    always = {"trust_remote_code": True}
    assert refused_on_the_page() == set(_ELSEWHERE)
    for name, instead in _ELSEWHERE.items():
        with pytest.raises(ConfigError) as caught:
            translated({name: always.get(name, "x")}, CPU)
        assert str(caught.value) == f"load_pretrained has no {name}; {instead}"
        assert translated({name: None}, CPU) == CPU
    with pytest.raises(ConfigError, match="load_pretrained has no revision; fetch it by `hf download"):
        b2.load_pretrained(folder("opt"), revision="main")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"torch_dtype": torch.float16}, {"dtype": torch.float16}),
        ({"torch_dtype": "auto"}, {}),
        ({"device_map": "auto"}, {"device": None}),
        ({"device_map": {"": 0}}, {"device": "cuda:0"}),
        ({"device_map": 1}, {"device": "cuda:1"}),
        ({"device_map": {"": torch.device("cpu")}}, {"device": "cpu"}),
        ({"load_in_8bit": True}, {"quantization": "int8"}),
        ({"load_in_4bit": True, "load_in_8bit": False}, {"quantization": "int4"}),
        ({"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}, {"quantization": "int4"}),
        ({"quantization_config": None, "low_cpu_mem_usage": True, "use_safetensors": True}, {}),
        ({"trust_remote_code": False, "revision": None, "use_fast": True}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_mean_the_same_are_translated(given: dict[str, Any], expected: dict[str, Any]) -> None:
    own = {"device": None, "dtype": None, "quantization": "none"}
    assert translated(given, own) == own | expected


@pytest.mark.parametrize(
    ("given", "own", "words"),
    [
        ({"device_map": "balanced"}, {}, "device_map='balanced' spreads a model over devices"),
        ({"device_map": {"a": 0, "b": 1}}, {}, "device_map names 2 devices"),
        ({"device_map": "cuda"}, {"device": "cpu"}, "device_map='cuda' and device='cpu' are two different things"),
        ({"load_in_8bit": True, "load_in_4bit": True}, {}, "load_in_4bit=True and quantization='int8' are two"),
        ({"quantization_config": {"quant_method": "gptq"}}, {}, "quantization_config: gptq is not there"),
        (
            {"quantization_config": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True}}, {},
            "bnb_4bit_use_double_quant=True is not there; quantization='int8' or 'int4'",
        ),
        ({"quantisation": "int8"}, {}, "load_pretrained has no quantisation; did you mean quantization"),
        ({"foo": 1}, {}, "load_pretrained has no foo; it has device, .* of transformers torch_dtype, device_map"),
        ({"load_in_8bits": True}, {}, "load_pretrained has no load_in_8bits; did you mean load_in_8bit"),
    ],
)  # fmt: skip
def test_arguments_that_have_no_meaning_here_are_one_line(given: Any, own: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        translated(given, {"device": None, "dtype": None, "quantization": "none"} | own)
