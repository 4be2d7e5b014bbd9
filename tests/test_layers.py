import ast
import subprocess
import sys
from pathlib import Path

import pytest

import charlm

PACKAGE = Path(charlm.__file__).parent
TEXT = {
    "errors",
    "config",
    "terminal",
    "ids",
    "words",
    "characters",
    "tokenizer",
    "glove",
    "library",
    "sources",
    "lines",
    "corpus",
    "idcache",
}
ENGINE = {
    "tensorfile",
    "checkpoint",
    "runs",
    "curves",
    "engine",
    "decoding",
    "sampler",
    "beam",
    "novelty",
    "scorer",
    "finetune",
}
TRAINING = {
    "loss",
    "model",
    "optimizer",
    "batches",
    "plan",
    "pace",
    "stopwatch",
    "schedule",
    "parallel",
    "resume",
    "validation",
    "progress",
    "trainer",
    "lessons",
}
STOREYS = [
    (TEXT, TEXT, {"numpy"}),
    (ENGINE, TEXT | ENGINE, {"numpy", "safetensors"}),
    (TRAINING, TEXT | ENGINE | TRAINING, {"numpy", "torch"}),
]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; charlm's own by the name of the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def files(module: str) -> list[Path]:
    path = PACKAGE / module
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_every_module_belongs_to_a_storey() -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules == TEXT | ENGINE | TRAINING | {"__init__", "__main__", "cli"}


@pytest.mark.parametrize(("modules", "own", "foreign"), STOREYS, ids=["text", "engine", "training"])
def test_a_storey_imports_only_from_itself_and_below(modules: set[str], own: set[str], foreign: set[str]) -> None:
    for module in modules:
        for path in files(module):
            for name in imports(path):
                top, _, rest = name.partition(".")
                if top == "charlm":
                    assert not rest or rest.split(".")[0] in own, f"{path.name} imports {name}"
                else:
                    assert top in foreign or top in sys.stdlib_module_names, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["sample", "-n", "5"],
        ["sample", "-n", "5", "--beam", "2"],
        ["score", "--total"],
        ["next"],
        ["info"],
        ["corpus"],
        ["novelty", "--corpus", "hello"],
        ["vectors", "export"],
        ["vectors", "nearest", "e"],
    ],
    ids=" ".join,
)
def test_only_training_imports_torch(arguments: list[str], model_file: Path) -> None:
    assert_never_imported("torch", arguments)


@pytest.mark.parametrize("budget", [["--steps", "2"], ["--minutes", "0.02"]], ids=" ".join)
def test_training_imports_no_compiler(budget: list[str]) -> None:
    """It would take as long as all else together that comes before the first update."""
    assert_never_imported("torch._dynamo", ["train", "-", *budget, "--layers", "2", "--hidden", "8"])


def assert_never_imported(module: str, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom charlm.cli import main\n"
        "try:\n    main(sys.argv[2:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert sys.argv[1] not in sys.modules"
    )
    command = [sys.executable, "-c", code, module, *arguments]
    done = subprocess.run(command, input="To be", capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


def test_help_imports_neither_numpy_nor_a_command() -> None:
    code = (
        "import sys\nfrom charlm.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'rich', 'tqdm', 'charlm.cli.train'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
