import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import charlm
from tests.conftest import VERSE

PACKAGE = Path(charlm.__file__).parent
ROOT_MODULES = {
    "charlm._version",
    "charlm.atomic",
    "charlm.classifier_config",
    "charlm.config",
    "charlm.errors",
    "charlm.item_config",
    "charlm.memory",
    "charlm.sample_config",
    "charlm.settings",
}
"""Modules beside the folders; they import nothing but each other and the standard library."""

RULES: dict[str, tuple[set[str], set[str]]] = {
    # folder: the folders below it, and the third-party packages that it may import
    "text": (set(), {"numpy"}),
    "engine": ({"text"}, {"numpy", "onnx", "safetensors"}),
    "training": ({"text", "engine"}, {"numpy", "torch"}),
    "lessons": ({"text", "engine", "training"}, {"numpy", "torch"}),
    "cli": ({"text", "engine", "training", "lessons"}, {"click", "rich", "tqdm", "matplotlib", "numpy", "torch"}),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at the top, inside functions or for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= submodules & MODULES.keys() or {node.module}
    return found


def test_every_folder_has_a_rule() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == RULES.keys()


@pytest.mark.parametrize("folder", RULES)
def test_a_folder_imports_only_itself_and_folders_below(folder: str) -> None:
    below, packages = RULES[folder]
    allowed = tuple(f"charlm.{name}" for name in (folder, *below))
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for name in imports(path):
            own = name in {"charlm", *ROOT_MODULES} or name.startswith(allowed)
            top = name.partition(".")[0]
            assert own or top in packages or top in sys.stdlib_module_names, f"{path}: imports {name}"


@pytest.mark.parametrize("module", sorted(ROOT_MODULES & MODULES.keys()))
def test_root_modules_import_only_each_other(module: str) -> None:
    for name in imports(MODULES[module]):
        assert name in ROOT_MODULES or name.partition(".")[0] in sys.stdlib_module_names, f"{module}: imports {name}"


def test_no_import_cycle() -> None:
    """Imports inside functions and for types count too: a cycle of any kind means that two modules are one."""
    edges = {name: {found for found in imports(path) if found in MODULES} for name, path in MODULES.items()}
    waiting = dict(edges)
    while leaves := [name for name, needs in waiting.items() if not needs & waiting.keys() - {name}]:
        for name in leaves:
            del waiting[name]
    assert not waiting, f"import cycle among {sorted(waiting)}"


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
        ["ls"],
        ["corpus"],
        ["novelty", "--corpus", "hello"],
        ["vectors", "export"],
        ["vectors", "nearest", "e"],
    ],
    ids=" ".join,
)
def test_only_training_imports_torch(arguments: list[str], model_file: Path) -> None:
    assert_never_imported("torch", arguments)


def test_training_imports_no_compiler() -> None:
    """It would take as long as all else together that comes before the first update."""
    Path("text.txt").write_text("To be", encoding="utf-8")
    Path("verse.txt").write_text(VERSE, encoding="utf-8")
    small = ["train", "text.txt", "--layers", "2", "--hidden", "8"]
    with_ngrams = ["train", "verse.txt", "--hidden", "8", "--ngram", "--val-fraction", "0.2"]
    assert_never_imported(
        "torch._dynamo",
        [*small, "--steps", "2"],
        [*small, "--minutes", "2", "--plan"],
        [*with_ngrams, "--steps", "2"],
    )


def assert_never_imported(module: str, *commands: list[str]) -> None:
    """Run command lines one after the other in a new process, which must not import a module."""
    code = (
        "import json, sys\nfrom charlm.cli import main\n"
        "for arguments in json.loads(sys.argv[2]):\n"
        "    try:\n        main(arguments)\n    except SystemExit as end:\n        assert not end.code, end.code\n"
        "    assert sys.argv[1] not in sys.modules, arguments"
    )
    command = [sys.executable, "-c", code, module, json.dumps(commands)]
    done = subprocess.run(command, input="To be", capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_imports_neither_numpy_nor_a_command(argument: str) -> None:
    code = (
        "import sys\nfrom charlm.cli import main\n"
        f"try:\n    main(['{argument}'])\nexcept SystemExit:\n    pass\n"
        "assert not {'numpy', 'rich', 'charlm.cli.train'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
