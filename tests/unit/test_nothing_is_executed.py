"""Nothing that comes from data or from a file of weights is run: the calls that could do so are not in the package."""

import ast
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
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in NEVER or name.rpartition(".")[2] in METHODS:
            found.append(name)
        if (name == "torch.load" or "ckpt_path" in options) and options.get("weights_only") != "True":
            found.append(f"{name} without weights_only=True")
        if options.get("shell", "False") != "False" or options.get("allow_pickle", "False") != "False":
            found.append(f"{name} with a shell or a pickle")
    return found


def test_the_walk_sees_each() -> None:
    text = "eval(x); torch.load(p); np.load(p, allow_pickle=True); subprocess.run(c, shell=True); tar.extractall(f)"
    assert len(findings(ast.parse(text))) == 5
    assert findings(ast.parse("torch.load(p, weights_only=True); model.eval(); re.compile(x); np.load(p)")) == []


def test_no_such_call() -> None:
    found = {path: findings(ast.parse(path.read_text("utf-8"))) for path in PACKAGE.rglob("*.py")}
    assert {str(path): calls for path, calls in found.items() if calls} == {}
