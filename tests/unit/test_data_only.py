"""What crosses Redis or comes off a disk is data: nothing in `worker/` can turn it into code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

WORKER = Path(__file__).parents[2] / "worker"
MODULES = sorted(WORKER.rglob("*.py"))
#: Libraries whose loaders run what they read.
EXECUTING = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "code"}
#: Calls that run, or unpickle, or import by name, what they are given.
REFUSED_CALLS = {
    "eval", "exec", "compile", "__import__", "importlib.import_module", "torch.load", "np.load", "numpy.load",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all", "os.system",
    "import_attribute", "rq.utils.import_attribute",
}  # fmt: skip
#: `multiprocessing.connection.Connection.recv` unpickles; `recv_bytes` does not.
REFUSED_METHODS = {"recv"}


def dotted(node: ast.AST) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{dotted(node.value)}.{node.attr}"
    return ""


def _refuses_pickles(word: ast.keyword) -> bool:
    return word.arg == "allow_pickle" and isinstance(word.value, ast.Constant) and word.value.value is False


def findings(source: str) -> Iterator[str]:
    """Name everything in a module that could run data."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names if alias.name.split(".")[0] in EXECUTING)
            case ast.ImportFrom():
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from (name for name in names if name.split(".")[0] in EXECUTING or name in REFUSED_CALLS)
            case ast.Call(func=func, keywords=words) if dotted(func) == "np.load" and any(map(_refuses_pickles, words)):
                pass
            case ast.Call(func=func) if dotted(func) in REFUSED_CALLS:
                yield dotted(func)
            case ast.Call(func=ast.Attribute(attr=attr)) if attr in REFUSED_METHODS:
                yield attr
            case ast.keyword(arg=("allow_pickle" | "trust_remote_code" | "shell"), value=ast.Constant(value=True)):
                yield str(node.arg)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(WORKER)))
def test_no_module_can_run_what_it_reads(module: Path) -> None:
    assert list(findings(module.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "import marshal as m", "from shelve import open", "import yaml; yaml.load(x)",
        "import yaml; yaml.unsafe_load(x)", "torch.load(x)", "eval(x)", "connection.recv()", "from torch import load",
        "from importlib import import_module", "np.load(x, allow_pickle=True)",
        "np.load(x)", "np.load(x, allow_pickle=maybe)", "run(x, shell=True)",
    ],
)  # fmt: skip
def test_what_could_run_data_is_found(line: str) -> None:
    assert list(findings(line))


def test_every_checkpoint_is_loaded_from_safetensors() -> None:
    calls = [
        node
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and dotted(node.func).endswith("Model.from_pretrained")
    ]
    assert calls
    for call in calls:
        assert [ast.unparse(word) for word in call.keywords if word.arg == "use_safetensors"] == [
            "use_safetensors=True"
        ]
