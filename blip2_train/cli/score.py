"""`python scripts/score.py {captions,vqa}`: score a file of predictions, from wherever it came, without a model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from blip2_train import __version__
from blip2_train.cli.command_parser import CommandParser, add_output
from blip2_train.cli.json_lines import new_file
from blip2_train.cli.terminal import run_command
from blip2_train.data.annotations.captions import read_references
from blip2_train.data.annotations.questions import read_questions
from blip2_train.data.annotations.results import ANSWERS, CAPTIONS, GQA_ANSWERS, read_results
from blip2_train.data.annotations.visual_questions import VisualQuestion
from blip2_train.data.official.results import write_json
from blip2_train.errors import ConfigError
from blip2_train.evaluation.metrics.coco_caption import CAPTION_METRICS, CaptionScores, score_captions
from blip2_train.evaluation.metrics.nocaps import ENTIRE, score_domains
from blip2_train.evaluation.metrics.vqa_accuracy import AnswerScores, ExactRules, exact_match_accuracy, vqa_accuracy
from blip2_train.system.screen import echo, make_console
from blip2_train.system.tables import NumbersTable

ABOUT = """\
Score a file of predictions against official annotations. The result is JSON, on standard output or in a file; a
terminal shows it as a table, too. A metric that cannot be computed is null, with its reason."""
EXAMPLES = """\
examples:
  python scripts/score.py captions --predictions results.json --annotations captions_val2014.json
  python scripts/score.py captions --predictions results.json --annotations nocaps_val_4500_captions.json
  python scripts/score.py vqa --predictions results.json --questions v2_OpenEnded_mscoco_val2014_questions.json \\
                              --annotations v2_mscoco_val2014_annotations.json
  python scripts/score.py vqa --metric gqa --predictions results.json --questions testdev_balanced_questions.json"""

Result = dict[str, Any]
_EXACT_RULES = {
    "accuracy": "both sides normalised, as in the released code of BLIP-2",
    "accuracy_plain": "texts as they are, as in the official program of GQA",
}
T = TypeVar("T")


def main(arguments: list[str]) -> None:
    """Score, and give the result."""
    options = _parser().parse_args(arguments)
    output = new_file(options.output, options.overwrite) if options.output else None
    result, table = options.score(options)
    if output is None:
        echo(json.dumps(result, indent=2))
    else:
        write_json(output, result, indent=2)
    console = make_console(stderr=True, markup=False, highlight=False)
    if console.is_terminal:
        console.print(table)
        for metric, reason in result.get("reasons", {}).items():
            console.print(f"{metric}: {reason}", soft_wrap=True)


def _captions(options: argparse.Namespace) -> tuple[Result, NumbersTable]:
    annotated = read_references(options.annotations, options.split)
    predictions = read_results(options.predictions, CAPTIONS)
    images = _chosen(options, predictions, {image.identity: image for image in annotated})
    references: dict[int | str, tuple[str, ...]] = {image.identity: image.captions for image in images}
    metrics, limit = options.metrics, options.time_limit
    if images[0].domain:
        domains: dict[int | str, str] = {image.identity: image.domain for image in images}
        by_domain = score_domains(predictions, references, domains, metrics, time_limit=limit)
    else:
        domains = {}
        by_domain = {ENTIRE: score_captions(predictions, references, metrics, time_limit=limit)}
    counts = {name: sum(domain == name for domain in domains.values()) for name in by_domain}
    domain_records = {
        name: {"pictures": counts[name] if name != ENTIRE else len(images), **_scores(scores)}
        for name, scores in by_domain.items()
    }
    result = {"task": "captions", **_inputs(options, "predictions", "annotations"), **domain_records.pop(ENTIRE)}
    result |= _share(options, len(images), len(annotated), "images")
    table = NumbersTable(["metric", *by_domain], title=f"captions (x 100){_of(options, len(images), len(annotated))}")
    for metric in metrics:
        values = [scores.scores[metric] for scores in by_domain.values()]
        table.add_row(metric, *("–" if value is None else f"{100 * value:.2f}" for value in values))
    return result | ({"domains": domain_records} if domains else {}), table


def _chosen(options: argparse.Namespace, predictions: Mapping[int | str, str], known: Mapping[int | str, T]) -> list[T]:
    """What is scored: everything, or with `--partial` what there is a prediction for."""
    chosen = [one for key, one in known.items() if not options.partial or key in predictions]
    if not chosen:
        raise ConfigError(
            f"{options.predictions} has no id in common with the annotations, so there is nothing to score; take the "
            "files of one set"
        )
    return chosen


def _share(options: argparse.Namespace, scored: int, known: int, things: str) -> Result:
    if not options.partial:
        return {}
    echo(f"partial: {scored} of {known} {things} scored; not comparable with scores of all", file=sys.stderr)
    return {"partial": {"scored": scored, "of": known}}


def _of(options: argparse.Namespace, scored: int, known: int) -> str:
    return f", {scored} of {known}" if options.partial else ""


def _scores(result: CaptionScores[int | str]) -> Result:
    return {"scores": result.scores, "reasons": result.reasons}


def _vqa(options: argparse.Namespace) -> tuple[Result, NumbersTable]:
    gqa, agreement = options.metric == "gqa", options.metric == "vqa"
    if gqa and (options.annotations or options.rules):
        raise ConfigError("--metric gqa takes neither --annotations (the answers are in the questions) nor --rules")
    if options.rules and not agreement:
        raise ConfigError(f"--rules are those of --metric vqa, not of {options.metric}; leave them out")
    everything = read_questions(options.questions, options.annotations, strict=True)
    predictions = read_results(options.predictions, GQA_ANSWERS if gqa else ANSWERS)
    questions = _chosen(options, predictions, {question.question_id: question for question in everything})
    if bare := [question.question_id for question in questions if not question.answers]:
        raise ConfigError(
            f"{len(bare)} questions of {options.questions} have no answers (first: {bare[0]}); give --annotations, or "
            "submit the predictions where the answers are not published"
        )
    if agreement and (lonely := [one for one in questions if len(one.answers) < 2]):
        raise ConfigError(
            f"question {lonely[0].question_id!r} of {options.questions} has one answer, and VQA accuracy compares "
            "people; pass --metric exact, which compares with it"
        )
    rules = options.rules or "2016"
    accuracy = _vqa_scores(predictions, questions, rules) if agreement else _exact_scores(predictions, questions)
    plain = None if agreement else _exact_scores(predictions, questions, "plain")
    parts = {"overall": accuracy.overall, "per_answer_type": accuracy.per_answer_type}
    result = {
        "task": "vqa",
        "metric": options.metric,
        "rules": rules if agreement else _EXACT_RULES,
        **_inputs(options, "predictions", "questions", *(["annotations"] if options.annotations else [])),
        "questions_scored": len(questions),
        **_share(options, len(questions), len(everything), "questions"),
        "accuracy": accuracy.rounded(),
        "accuracy_unrounded": parts | {"per_question_type": accuracy.per_question_type},
        **({} if plain is None else {"accuracy_plain": plain.rounded()}),
    }
    columns = {"accuracy": accuracy} if plain is None else {"normalised": accuracy, "plain": plain}
    table = NumbersTable(["questions", *columns], title=f"accuracy (%){_of(options, len(questions), len(everything))}")
    table.add_row("all", *(f"{scores.overall:.2f}" for scores in columns.values()))
    for name in accuracy.per_answer_type:
        table.add_row(name, *(f"{scores.per_answer_type[name]:.2f}" for scores in columns.values()))
    for name in accuracy.per_question_type:
        table.add_row(name, *(f"{scores.per_question_type[name]:.2f}" for scores in columns.values()))
    return result, table


def _vqa_scores(predictions: dict[int | str, str], questions: list[VisualQuestion], rules: Any) -> AnswerScores[Any]:
    return vqa_accuracy(predictions, rules=rules, **_by_question(questions))


def _exact_scores(
    predictions: dict[int | str, str], questions: list[VisualQuestion], rules: ExactRules = "released"
) -> AnswerScores[Any]:
    return exact_match_accuracy(predictions, rules=rules, **_by_question(questions))


def _by_question(questions: list[VisualQuestion]) -> dict[str, dict[int | str, Any]]:
    """Answers and types by question, as both metrics take them."""
    return {
        "answers": {question.question_id: question.answers for question in questions},
        "answer_types": {question.question_id: question.answer_type for question in questions},
        "question_types": {question.question_id: question.question_type for question in questions},
    }


def _inputs(options: argparse.Namespace, *names: str) -> Result:
    """The files that were scored, with their hashes, and the versions of what scored them."""
    from blip2_train.checkpoints.files import file_fingerprint  # loads torch, which help does not need

    files = {name: Path(getattr(options, name)).expanduser() for name in names}
    records = {name: {"path": str(path), "sha256": file_fingerprint(path)} for name, path in files.items()}
    return {**records, "versions": {"blip2_train": __version__, "pycocoevalcap": version("pycocoevalcap")}}


def _parser() -> argparse.ArgumentParser:
    whole = CommandParser(prog="score.py", description=ABOUT, epilog=EXAMPLES)
    tasks = whole.add_subparsers(dest="task", required=True, metavar="task", parser_class=CommandParser)
    about = "Score captions; with NoCaps' annotations in-domain, near-domain, out-domain and entire."
    task = _task(tasks, "captions", about, _captions)
    task.add_argument("--predictions", required=True, metavar="FILE", help='[{"image_id": …, "caption": …}]')
    task.add_argument(
        "--annotations", required=True, metavar="FILE", help="captions in COCO's format, or NoCaps', or any other"
    )
    task.add_argument("--split", metavar="NAME", help="which images, of annotations with splits")
    task.add_argument(
        "--metrics",
        nargs="+",
        choices=CAPTION_METRICS,
        default=CAPTION_METRICS,
        metavar="NAME",
        help=f"of {', '.join(CAPTION_METRICS)}",
    )
    task.add_argument(
        "--time-limit", type=_seconds, default=3600.0, metavar="S", help="seconds for each Java program (default 3600)"
    )
    add_output(task, "JSON file")
    about = "Score answers: VQAv2 and OK-VQA as people would agree, GQA by exact match, normalised and plain."
    task = _task(tasks, "vqa", about, _vqa)
    form = '[{"question_id": …, "answer": …}]; of GQA [{"questionId": …, "prediction": …}]'
    task.add_argument("--predictions", required=True, metavar="FILE", help=form)
    task.add_argument(
        "--questions",
        required=True,
        metavar="FILE",
        help="official questions, or any others; with answers where --annotations are not given",
    )
    task.add_argument("--annotations", metavar="FILE", help="answers of the same questions")
    about = "vqa (default): agreement of people; exact: one of the answers; gqa: the same, in GQA's files"
    task.add_argument("--metric", choices=("vqa", "exact", "gqa"), default="vqa", help=about)
    task.add_argument(
        "--rules", choices=("2016", "2021"), help="version of the official program (default 2016: published results)"
    )
    add_output(task, "JSON file")
    return whole


def _task(
    tasks: Any, name: str, about: str, score: Callable[[argparse.Namespace], tuple[Result, NumbersTable]]
) -> argparse.ArgumentParser:
    task: argparse.ArgumentParser = tasks.add_parser(name, help=about, description=about)
    task.set_defaults(score=score)
    task.add_argument(
        "--partial", action="store_true", help="score only what there is a prediction for, and say how many of how many"
    )
    return task


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def command() -> None:
    """Entry of the console script."""
    sys.exit(run_command(main))
