"""The options of `predict.py`, task by task."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blip2_train.cli.command_parser import CommandParser, add_output
from blip2_train.errors import ConfigError
from blip2_train.models.attention_kernels import KERNELS

ABOUT = """\
Use a trained model: caption images, answer questions about them, talk about one, match them with texts,
write their features, or search these. Results are lines of JSON, written as they come. An image that cannot
be read becomes {"image": …, "error": …}; the others are still done, and the exit code is 2."""
EXAMPLES = """\
examples:
  python scripts/predict.py caption --model outputs/demo_stage2_opt/<run> images/ --output captions.jsonl
  python scripts/predict.py caption --model outputs/demo_stage1/<run> --sample images/   # by the Q-Former alone
  python scripts/predict.py answer  --model Salesforce/blip2-opt-2.7b --dtype bfloat16 --question "what is this?" a.jpg
  python scripts/predict.py chat    --model outputs/demo_stage2_opt/<run> a.jpg
  python scripts/predict.py match   --model outputs/demo_stage1/<run> --text "a cat" --text "a dog" images/
  python scripts/predict.py embed   --model outputs/demo_stage1/<run> images/ --output features.npz
  python scripts/predict.py search  --model outputs/demo_stage1/<run> --index features.npz "a red bus\""""
GENERATION = ("num_beams", "max_new_tokens", "min_new_tokens", "length_penalty", "repetition_penalty", "do_sample")
SAMPLING = ("top_p", "top_k", "temperature")
TEXTS = "num_return_sequences"
DTYPES = ("float32", "bfloat16", "float16")
_ELSEWHERE = {
    "--torch-dtype": "--dtype",
    "--precision": "--dtype",
    "--device-map": "--device",
    "--load-in-8bit": "--quantization int8",
    "--load-in-4bit": "--quantization int4",
    "--max-length": "--max-new-tokens, which counts new tokens alone",
    "--min-length": "--min-new-tokens, which counts new tokens alone",
    "--do-sample": "--sample",
    "--use-nucleus-sampling": "--sample",
    "--num-captions": "--num-return-sequences",
    "--checkpoint": "--model",
    "--pretrained": "--model",
    "--image": "no option: images stand at the end",
    "--images": "no option: images stand at the end",
    "--input": "no option: images stand at the end",
}
"""Options of transformers' and LAVIS' users, and ours."""


def parser() -> argparse.ArgumentParser:
    """The command's parser; a mistake raises `ConfigError`."""
    whole = CommandParser(prog="predict.py", description=ABOUT, epilog=EXAMPLES)
    tasks = whole.add_subparsers(dest="task", required=True, metavar="task", parser_class=CommandParser)
    _caption(tasks)
    _answer(tasks)
    _chat(tasks)
    _match(tasks)
    _embed(tasks)
    _search(tasks)
    return whole


def generation_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options of generation that were given."""
    values = {name: getattr(options, name, None) for name in (*GENERATION, *SAMPLING, TEXTS)}
    return {name: value for name, value in values.items() if value is not None}


def lines_of(given: list[str] | None, file: str | None, what: str) -> list[str]:
    """Texts given one by one, then those of a file, one a line without the blank ones.

    Raises:
        ConfigError: if the file cannot be read or holds no text, or a text is empty.
    """
    texts = list(given or ())
    if any(not text.strip() for text in texts):
        raise ConfigError(f"--{what} is empty; write a text, or leave it out")
    if file is None:
        return texts
    try:
        lines = [
            line.strip() for line in Path(file).expanduser().read_text(encoding="utf-8").split("\n") if line.strip()
        ]
    except OSError as error:
        raise ConfigError(f"--{what}s {file} cannot be read ({error.strerror}); give a text file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--{what}s {file} is no UTF-8 text; save it as UTF-8, one {what} a line") from None
    if not lines:
        raise ConfigError(f"--{what}s {file} holds no text; write one {what} a line")
    return texts + lines


def _caption(tasks: Any) -> None:
    about = (
        'Describe images: {"image": path, "caption": text} each. A generative model (stage 2) does so through its '
        "language model, an image-text model (stage 1) through its Q-Former."
    )
    task = _task(tasks, "caption", "describe images", about)
    _images(task)
    task.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what captions go on from (default: as the model was trained); may be repeated for several captions",
    )
    task.add_argument("--prompts", metavar="FILE", help="text file, one prompt a line")
    task.add_argument("--no-prompt", action="store_true", help="let captions start from nothing")
    _model(task)
    _generation(task, beams="5, stage 1: 3", tokens="30, stage 1: 29", least="1, stage 1: 9", penalty=1)
    _several(task, "captions of each image")
    _output(task)


def _answer(tasks: Any) -> None:
    about = 'Answer each question about each image: {"image": path, "question": text, "answer": text}.'
    task = _task(tasks, "answer", "answer questions about images", about, "--question TEXT ")
    _images(task)
    task.add_argument("--question", action="append", metavar="TEXT", help="for each image; may be repeated")
    task.add_argument("--questions", metavar="FILE", help="text file, one question a line, for each image")
    task.add_argument(
        "--prompt",
        metavar="FORM",
        help='form of a question, with {} for it (default "Question: {} Answer:", for encoder-decoder language models '
        '"Question: {} Short answer:")',
    )
    task.add_argument(
        "--candidates", metavar="FILE", help="answer with the likeliest of these: JSON list, or one answer a line"
    )
    task.add_argument("--as-typed", action="store_true", help='do not put questions in lower case without .!"()*#:;~')
    _model(task)
    _generation(task, beams=5, tokens=10, penalty=-1)
    _several(task, "answers to each question")
    _output(task)


def _chat(tasks: Any) -> None:
    about = (
        "Talk about one image. Lines from the terminal or a pipe are messages, to each of which the answer is "
        "printed; an empty line or 'exit' ends it. The model reads the conversation so far each time."
    )
    task = _task(tasks, "chat", "talk about an image", about, end="image")
    task.add_argument("image", help="image file")
    task.add_argument(
        "--prompt", metavar="FORM", help='form of a message, with {} for it (default "Question: {} Answer:")'
    )
    task.add_argument(
        "--stream", action="store_true", help="print answers while they are generated, which takes --num-beams 1"
    )
    _model(task)
    _generation(task, beams="5, with --stream 1", tokens=30, penalty=1)


def _match(tasks: Any) -> None:
    about = (
        'Score each image with each text: {"image": path, "text": text, "itc": cosine of text and best query, "itm": '
        "probability of a match}."
    )
    task = _task(tasks, "match", "score images with texts", about, "--text TEXT ")
    _images(task)
    task.add_argument("--text", action="append", metavar="TEXT", help="a text; may be repeated")
    task.add_argument("--texts", metavar="FILE", help="text file, one text a line")
    _model(task)
    _output(task)


def _embed(tasks: Any) -> None:
    about = """\
Write features to one file: arrays with one row for each image, text, or pair of both.

An image-text model (stage 1) gives
  of images  image_states (N, queries, hidden), image_features (N, queries, features; unit length)
  of texts     text_states (N, tokens, hidden), text_mask (N, tokens), text_features (N, features)
  of pairs     all of these, and multimodal_states (N, queries, hidden)
a generative model (stage 2)
  of images  query_states (N, queries, hidden), soft_prompt (N, queries, hidden of the language model)
The arrays image and text (in safetensors: JSON lists in the metadata) say what each row is of; an image
that cannot be read has no row. The file is what `search` reads: it also says which model computed it,
with checksums."""
    task = _task(tasks, "embed", "write features of images and texts", about, "--output FILE ")
    _images(task, needed=False)
    text = task.add_mutually_exclusive_group()
    text.add_argument("--text", metavar="TEXT", help="a text that goes with every image, or stands alone")
    text.add_argument("--texts", metavar="FILE", help="text file, one text a line: one per image in order, or alone")
    task.add_argument("--output", required=True, metavar="FILE", help="file to write, .npz or .safetensors")
    task.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    _model(task)


def _search(tasks: Any) -> None:
    about = """\
Search what `embed` wrote: images by a text or by an image, or texts by an image. Each result is a line
{"query": …, "by": "text" or "image", "rank": 1, "image" or "text": …, "similarity": cosine}.

The model must be the one that computed the index, an image-text model (stage 1). Texts and images are
compared as in training; images with images by the mean cosine of their queries' features."""
    task = _task(tasks, "search", "search images or texts", about, "--index FILE ", end="text …")
    task.add_argument("query", nargs="*", metavar="text", help="texts to search for")
    task.add_argument("--index", required=True, metavar="FILE", help="what `embed` wrote, .npz or .safetensors")
    task.add_argument("--image", action="append", metavar="FILE", help="image to search for; may be repeated")
    task.add_argument("--texts", metavar="FILE", help="text file, one text to search for a line")
    task.add_argument("--top", type=_positive, default=10, metavar="N", help="results of each search (default 10)")
    task.add_argument(
        "--rerank",
        type=_positive,
        default=0,
        metavar="N",
        help="put the N nearest in the order of their probability of a match, for which their images are read again",
    )
    task.add_argument(
        "--faiss",
        metavar="KIND",
        help="search by FAISS: Flat (exact), HNSW32, IVF1024,Flat or another of its factory (default: exact, without)",
    )
    _model(task)
    add_output(task, "file of JSON lines")


def _task(
    tasks: Any, name: str, purpose: str, about: str, needed: str = "", end: str = "images-or-folders"
) -> argparse.ArgumentParser:
    usage = f"predict.py {name} --model SOURCE {needed}[option …] {end}"
    task: argparse.ArgumentParser = tasks.add_parser(
        name, help=purpose, description=about, usage=usage, elsewhere=_ELSEWHERE
    )
    return task


def _output(task: argparse.ArgumentParser) -> None:
    group = add_output(task, "file: .csv, .parquet, or JSON lines by any other ending")
    group.add_argument(
        "--table", action="store_true", help="one row for each image, with a column for each prompt, question or text"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _model(task: argparse.ArgumentParser) -> None:
    group = task.add_argument_group("model")
    group.add_argument(
        "--model",
        required=True,
        metavar="SOURCE",
        help="export or run folder, last:<recipe>, Hugging Face BLIP-2 folder or id, LAVIS or Paddle file",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<number> or mps (default auto)")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        metavar="TYPE",
        help="float32, bfloat16 or float16 for language model and frozen tower (default: as configured)",
    )
    group.add_argument(
        "--quantization",
        choices=("none", "int8", "int4"),
        default="none",
        metavar="BITS",
        help="none, int8 or int4 for the language model (default none)",
    )
    group.add_argument(
        "--vision-quantization",
        choices=("none", "int8", "float8"),
        default="none",
        metavar="BITS",
        help="none, int8 or float8 for a frozen tower (default none)",
    )
    group.add_argument(
        "--attention-kernel-off",
        dest="attention_kernels_off",
        action="append",
        default=[],
        choices=KERNELS,
        metavar="KERNEL",
        help="attention kernel of torch to do without: cudnn, flash, efficient or math; may be repeated",
    )
    group.add_argument("--language-model", metavar="NAME", help="its folder or hub id, if the source has none")
    group.add_argument("--vision-weights", metavar="FILE", help="file of the tower, if the source has none")
    group.add_argument("--tokenizer", metavar="NAME", help="folder or hub id of BERT's, if the source has none")


def _images(task: argparse.ArgumentParser, needed: bool = True) -> None:
    task.add_argument(
        "images",
        nargs="+" if needed else "*",
        help="image files, http(s) addresses, folders with images at any depth, tar shards, Parquet and annotation "
        "files (.csv .tsv .jsonl .json), or - for such names from standard input, one a line",
    )
    task.add_argument(
        "--image-column",
        metavar="NAME",
        help="column of the image in Parquet and annotation files (default: a usual one)",
    )
    task.add_argument(
        "--image-folder",
        metavar="FOLDER",
        help="where the paths in such files start (default: the folder of the file)",
    )
    task.add_argument("--batch-size", type=_positive, default=16, metavar="N", help="images at once (default 16)")


def _generation(
    task: argparse.ArgumentParser, beams: int | str, tokens: int | str, penalty: int, least: int | str = 1
) -> None:
    group = task.add_argument_group("generation")
    group.add_argument("--num-beams", type=int, metavar="N", help=f"beams of the search, 1 = greedy (default {beams})")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help=f"longest text, tokens (default {tokens})")
    group.add_argument("--min-new-tokens", type=int, metavar="N", help=f"shortest text, tokens (default {least})")
    group.add_argument(
        "--length-penalty",
        type=float,
        metavar="X",
        help=f"above 0 favours long texts, below 0 short ones (default {penalty})",
    )
    group.add_argument(
        "--repetition-penalty", type=float, metavar="X", help="above 1 avoids tokens generated before (default 1)"
    )
    group.add_argument(
        "--sample",
        dest="do_sample",
        action="store_true",
        default=None,
        help="sample likely tokens instead of beam search",
    )
    group.add_argument(
        "--top-p", type=float, metavar="X", help="share of the probability that is sampled from (default 0.9)"
    )
    group.add_argument(
        "--top-k",
        type=int,
        metavar="N",
        help="likeliest tokens that are sampled from, before --top-p (default 0 = all)",
    )
    group.add_argument(
        "--temperature", type=float, metavar="X", help="below 1: nearer to the likeliest tokens (default 1)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling (default 0)")


def _several(task: argparse.ArgumentParser, what: str) -> None:
    task.add_argument(
        "--num-return-sequences",
        type=_positive,
        metavar="N",
        help=f"{what}, each with its number: the best of as many beams, or samples (default 1)",
    )
