import json
import os
from pathlib import Path

import pytest

from charlm.engine.runs import Run, find_model
from charlm.errors import CheckpointError, RunError


def touch(*paths: str) -> None:
    for age, name in enumerate(reversed(paths)):
        path = Path("checkpoints", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (10**9 - age, 10**9 - age))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\nb", "\x1b[2J"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(RunError, match="--name"):
        Run.named(name)


def test_without_a_name_the_first_free_one_is_taken() -> None:
    touch("text/model.safetensors", "text-2/log.jsonl")
    with Run.create(None, "text") as run:
        assert run.name == "text-3"
        with Run.create(None, "text") as other:  # taken, though there is nothing in it yet
            assert other.name == "text-4"


def test_a_run_is_replaced_only_by_force() -> None:
    touch("old/model.safetensors", "old/last.safetensors", "old/previous.safetensors", "old/log.jsonl")
    with pytest.raises(RunError, match="exists"), Run.create("old", ""):
        pass
    assert Run.named("old").exists
    with Run.create("old", "", force=True) as run:
        assert not run.exists


def test_what_a_killed_process_left_is_swept_away_and_nothing_else() -> None:
    touch("run/.last.safetensors.x1", "run/.model.safetensors.x2", "run/last.safetensors", "run/notes.txt")
    run = Run.named("run")
    with run.claimed():
        assert sorted(path.name for path in run.path.iterdir()) == [".lock", "last.safetensors", "notes.txt"]


def test_a_run_is_claimed_once_and_free_after() -> None:
    run = Run.named("run")
    with run.claimed():
        assert run.is_claimed()
        with pytest.raises(RunError, match=f"at work on this run \\(process {os.getpid()}\\)"), run.claimed():
            pass
    assert not run.is_claimed()
    with run.claimed():
        pass


def test_the_newest_run_with_a_save_is_resumed() -> None:
    touch("old/last.safetensors", "new/previous.safetensors", "other/model.safetensors")
    assert Run.to_resume("").name == "new"
    assert Run.to_resume("old").saves == [Path("checkpoints/old/last.safetensors")]
    assert Run.to_resume("checkpoints/old").path == Path("checkpoints/old")
    with pytest.raises(RunError, match="nothing to resume"):
        Run.to_resume("other")


def test_the_log_has_whole_lines_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.named("run").claimed():
        run = Run.named("run")
        run.append_log({"step": 1})
        length = run.log_bytes
        with monkeypatch.context() as patched:
            patched.setattr(
                "charlm.engine.runs.json.dumps", lambda entry: (_ for _ in ()).throw(OSError(28, "No space"))
            )
            with pytest.raises(RunError, match="No space"):
                run.append_log({"step": 2})
        run.append_log({"step": 3})
        run.cut_log(length)
        assert [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()] == [{"step": 1}]


def test_a_model_is_found_by_file_folder_name_or_age() -> None:
    touch("old/model.safetensors", "new/model.safetensors")
    for spec in ("old", "checkpoints/old", "checkpoints/old/model.safetensors"):
        assert find_model(spec) == Path("checkpoints/old/model.safetensors")
    assert find_model(None) == Path("checkpoints/new/model.safetensors")
    with pytest.raises(CheckpointError, match="the runs here are new, old"):
        find_model("none")
