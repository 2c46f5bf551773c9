"""Nothing that comes from data or from a file is run: the calls that could do so are not in the package, and what reads
files of others does so in the few places that check what they read.
"""

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "blip2_train"
NEVER = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads", "torch.jit.load", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "marshal.loads", "shelve.open", "joblib.load", "runpy.run_path",
}  # fmt: skip
METHODS = {"extract", "extractall", "unpack_archive"}
"""Of archives, which would write where a member's name says."""


def findings(tree: ast.AST) -> list[str]:
    """The calls that are not allowed."""
    calls = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in NEVER or name.rpartition(".")[2] in METHODS:
            calls.append(name)
        if (name == "torch.load" or "ckpt_path" in options) and options.get("weights_only") != "True":
            calls.append(f"{name} without weights_only=True")
        if options.get("shell", "False") != "False" or options.get("allow_pickle", "False") != "False":
            calls.append(f"{name} with a shell or a pickle")
    return calls


def test_the_walk_sees_each() -> None:
    text = "eval(x); torch.load(p); np.load(p, allow_pickle=True); subprocess.run(c, shell=True); tar.extractall(f)"
    assert len(findings(ast.parse(text))) == 5
    assert findings(ast.parse("torch.load(p, weights_only=True); model.eval(); re.compile(x); np.load(p)")) == []


def test_no_such_call() -> None:
    by_path = {path: findings(ast.parse(path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py")}
    assert {str(path): calls for path, calls in by_path.items() if calls} == {}


OWN_FILES = {
    "system/records.py": "the reader of files of others itself",
    "data/annotations/json_content.py": "the reader of annotation files, which checks each field",
    "data/annotations/entry.py": "cells of annotation files, the same",
    "data/annotations/annotated_images.py": "rows of annotation files that were written here",
    "data/shards/sample_files.py": "records of samples in shards; what cannot be read counts as rejected",
    "data/batches/qformer_tokenizer.py": "what a tokenizer that is loaded gives back",
    "data/sequential/source.py": "what the run hands its own readers",
    "data/prepare/preparation.py": "lines of its own folder",
    "data/prepare/new_captions.py": "lines of its own folder",
    "data/prepare/journal.py": "lines of its own folder",
    "data/features/layout.py": "a header that was just made",
    "data/features/preparation.py": "lines of its own folder",
    "data/emoji_scenes/world.py": "a mark of its own",
    "data/emoji_scenes/layout.py": "what was just written",
    "data/emoji_scenes/concepts.py": "comes with the package",
    "evaluation/metrics/metric_states.py": "what a child of its own writes",
    "evaluation/predictions.py": "its own settings, there and back",
    "checkpoints/convert/huggingface_config.py": "a configuration of transformers, there and back",
    "checkpoints/convert/transformers4.py": "what was just written",
    "training/non_finite.py": "lines of the run's own folder",
    "training/sample_log.py": "lines of the run's own folder",
    "system/folder_lock.py": "whoever holds a lock; anything else is another process",
}
"""Modules that read JSON by themselves, with the reason why that is nobody else's."""
CONFIGURATION = {
    "config/compose.py": "the folder of configurations, and that of the command line",
    "config/key_values.py": "the command line",
    "system/records.py": "a loader without objects, aliases and interpolations",
}
"""Modules that read YAML, or have interpolations resolved."""


@cache
def names_used() -> dict[str, set[str]]:
    """Names in each module, dotted ones whole."""
    used = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name)}
        used[str(path.relative_to(PACKAGE))] = names
    return used


def readers(functions: set[str]) -> dict[str, list[str]]:
    """Modules that use such functions, and which."""
    return {path: sorted(names & functions) for path, names in names_used().items() if names & functions}


def test_json_of_others_is_read_through_records() -> None:
    by_path = readers({"json.load", "json.loads", "json.JSONDecoder"})
    assert [path for path in by_path if path not in OWN_FILES] == []
    assert OWN_FILES.keys() <= by_path.keys()


def test_configurations_are_read_where_a_person_has_named_them() -> None:
    by_path = readers({"yaml.safe_load", "OmegaConf.load", "_PlainLoader", "hydra.utils.instantiate", "get_class"})
    known = CONFIGURATION.keys() | {path for path, calls in by_path.items() if calls == ["get_class"]}
    assert by_path.keys() <= known


def test_what_a_checkpoint_has_made_is_a_list() -> None:
    """Of the two ways from a configuration to an object, the one that calls any name is not used for checkpoints."""
    makers = readers({"instantiate"})
    assert "cli/export.py" not in makers and "config/checkpoint_parts.py" not in makers
