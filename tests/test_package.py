"""Checks of the two distributions: built, installed outside the clone, and used there."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from charlm._version import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECTS = {"charlm-cli": ROOT, "charlm-light": ROOT / "light"}
MODEL = "charlm/models/shakespeare/model.safetensors"
SECRETS = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
"""Environment variables that would lead to the files of the clone."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in SECRETS} | {"NO_COLOR": "1"}

LOG = '{"seconds": 1, "train_nats": 2.0}\n{"seconds": 2, "train_nats": 1.5, "val_nats": 1.7}\n'


def project(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((PROJECTS[name] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_the_light_distribution_differs_only_in_its_name_and_in_pytorch() -> None:
    full, light = project("charlm-cli"), project("charlm-light")
    own = ("name", "description", "dependencies", "scripts", "optional-dependencies")
    assert {key: value for key, value in full.items() if key not in own} == {
        key: value for key, value in light.items() if key not in own
    }
    assert [need for need in full["dependencies"] if not need.startswith("torch")] == light["dependencies"]
    assert full["scripts"]["charlm"] == light["scripts"]["charlm"]
    assert {full["scripts"]["charlm-cli"], light["scripts"]["charlm-light"]} == {light["scripts"]["charlm"]}
    del full["optional-dependencies"]["dev"]
    assert full["optional-dependencies"] == light["optional-dependencies"]
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "light" / "LICENSE").read_bytes()


def test_no_page_and_no_message_names_the_other_project() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    other = "install " + "charlm"
    named = [
        (name, line)
        for name in listed.stdout.split("\0")
        if (ROOT / name).is_file() and not name.endswith((".safetensors", ".gz"))
        for line in (ROOT / name).read_text(encoding="utf-8", errors="replace").splitlines()
        if re.search(rf"{other}(?!-cli|[-_]light)", line.replace("'", ""))
    ]
    assert named == []


def test_the_wheels_named_in_the_documentation_are_those_that_are_built() -> None:
    pages = [ROOT / "README.md", ROOT / "light" / "README.md", *ROOT.glob("docs/**/*.md")]
    named = {wheel for page in pages for wheel in re.findall(r"[\w.+-]+\.whl", page.read_text(encoding="utf-8"))}
    assert named == {f"charlm_light-{__version__}-py3-none-any.whl"}


def run(*command: str | Path, folder: Path, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, input=text, capture_output=True, encoding="utf-8", check=False
    )


def build(name: str, source: Path, folder: Path) -> tuple[Path, Path]:
    """Build a source distribution and a wheel from it, and return both."""
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, folder=source)
    assert done.returncode == 0, done.stderr
    stem = f"{name.replace('-', '_')}-{__version__}"
    sdist = folder / f"{stem}.tar.gz"
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, folder=folder / stem)
    assert done.returncode == 0, done.stderr
    return sdist, folder / f"{stem}-py3-none-any.whl"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The wheel of each distribution, built from its source distribution outside the clone."""
    folder = tmp_path_factory.mktemp("dist")
    return {name: build(name, source, folder)[1] for name, source in PROJECTS.items()}


@pytest.fixture(scope="module")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make an environment outside the clone in which a wheel is installed, and return its folder of programs."""

    def make(*arguments: str | Path) -> Path:
        folder = tmp_path_factory.mktemp("environment")
        assert run(sys.executable, "-m", "venv", folder, folder=folder).returncode == 0
        programs = folder / "bin"
        done = run(programs / "python", "-m", "pip", "install", "--quiet", *arguments, folder=folder)
        assert done.returncode == 0, done.stderr
        return programs

    return make


@pytest.mark.package
def test_a_wheel_from_the_clone_equals_one_from_the_source_distribution(
    wheels: Mapping[str, Path], tmp_path: Path
) -> None:
    for name, source in PROJECTS.items():
        done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, folder=source)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / wheels[name].name).read_bytes() == wheels[name].read_bytes()


@pytest.mark.package
def test_both_wheels_have_the_same_files(wheels: Mapping[str, Path]) -> None:
    contents = {}
    for name, wheel in wheels.items():
        with zipfile.ZipFile(wheel) as archive:
            files = {file: archive.read(file) for file in archive.namelist()}
        contents[name] = {file: data for file, data in files.items() if file.startswith("charlm/")}
        assert any(file.endswith("dist-info/licenses/LICENSE") for file in files)
    assert contents["charlm-cli"] == contents["charlm-light"]
    assert contents["charlm-cli"][MODEL] == (ROOT / "checkpoints/shakespeare/model.safetensors").read_bytes()
    tracked = {path.relative_to(ROOT).as_posix() for path in (ROOT / "charlm").rglob("*") if path.suffix != ".pyc"}
    assert {file for file in tracked if (ROOT / file).is_file()} | {MODEL} == contents["charlm-cli"].keys()


USES = [
    ("sample --seed 1 -n 20", ""),
    ("sample --items 2 --seed 1", ""),
    ("score", "To be, or not to be\n"),
    ("score --color", "To be, or not to be\n"),
    ("next --prime T", ""),
    ("novelty --corpus hello", "hello hello\n"),
    ("info", ""),
    ("info --card", ""),
    ("ls", ""),
    ("completion bash", ""),
    ("vectors nearest e", ""),
    ("export page.html", ""),
    ("plot brief", ""),
    ("corpus", ""),
    ("lesson", ""),
    ("lesson cell --source", ""),
    ("train --help", ""),
]
"""Command lines that need no PyTorch, with their input."""


@pytest.mark.package
def test_the_light_distribution_does_everything_but_training(
    wheels: Mapping[str, Path], new_environment: Callable[..., Path], tmp_path: Path
) -> None:
    programs = new_environment("-c", ROOT / "constraints.txt", wheels["charlm-light"])
    (packages,) = programs.parent.glob("lib/python*/site-packages")
    assert not (packages / "torch").exists()
    (tmp_path / "checkpoints" / "brief").mkdir(parents=True)
    (tmp_path / "checkpoints" / "brief" / "log.jsonl").write_text(LOG, encoding="utf-8")
    for arguments, text in USES:
        done = run(programs / "charlm", *arguments.split(), folder=tmp_path, text=text)
        assert (arguments, done.returncode, "Error" in done.stderr) == (arguments, 0, False)
        assert done.stdout
    (tmp_path / "labelled.tsv").write_text("pos\tgood\nneg\tbad\n" * 9, encoding="utf-8")
    for arguments in (
        "train hello --steps 2",
        "train --resume brief",
        "train hello --plan",
        "classify train labelled.tsv",
        "lesson cell",
    ):
        done = run(programs / "charlm", *arguments.split(), folder=tmp_path, text="")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith("Error: training and lessons need PyTorch, which is not installed: pip install t")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "brief",
        "checkpoints",
        "labelled.tsv",
        "log.jsonl",
        "page.html",
    ]
    assert run(programs / "charlm-light", "--version", folder=tmp_path).stdout.endswith("torch not installed)\n")
    facts = json.loads(run(programs / "charlm", "info", "--json", folder=tmp_path).stdout)
    assert (facts["file"], facts["origin"]) == (str(packages / MODEL), "included with charlm")
    code = "import charlm; print(charlm.load().score('To be').num_tokens)"
    assert run(programs / "python", "-c", code, folder=tmp_path).stdout == "5\n"


@pytest.mark.package
def test_the_full_distribution_trains(
    wheels: Mapping[str, Path], new_environment: Callable[..., Path], tmp_path: Path
) -> None:
    """PyTorch and the other packages are those of this environment, because a download of PyTorch takes minutes."""
    programs = new_environment("--no-deps", wheels["charlm-cli"])
    shared = Path(sysconfig.get_path("purelib"))
    (folder,) = programs.parent.glob("lib/python*/site-packages")
    (folder / "packages.pth").write_text(f"{shared}\n", encoding="utf-8")
    shutil.copy(ROOT / "README.md", tmp_path / "text.txt")
    sample = run(programs / "charlm-cli", "sample", "--seed", "1", "-n", "20", folder=tmp_path)
    assert len(sample.stdout) >= 20
    score = run(programs / "charlm", "score", folder=tmp_path, text="To be, or not to be\n")
    assert score.stdout == "2.2402\tTo be, or not to be\n"

    def trained(*options: str) -> dict[str, Any]:
        """Train, and return the last entry of the log."""
        command = (programs / "charlm", "train", "text.txt", "--hidden", "32", *options)
        training = run(*command, folder=tmp_path)
        assert training.returncode == 0, training.stderr
        facts = json.loads(run(programs / "charlm", "info", "--json", folder=tmp_path).stdout)
        assert training.stdout == f"{facts['file']}\n"
        last = (tmp_path / facts["file"]).with_name("log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return json.loads(last)

    assert trained("--steps", "50")["step"] == 50
    timed = trained("--time", "2s")  # includes the start-up; at least five updates are made all the same
    assert timed["seconds"] < 20  # the machine may be busy
    code = "import charlm; print(charlm.__file__)"
    assert run(programs / "python", "-c", code, folder=tmp_path).stdout.strip() == str(folder / "charlm/__init__.py")
