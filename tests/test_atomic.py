import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from charlm.atomic import atomic_write


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with suppress(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"second")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_the_old_file_or_the_usual_ones(tmp_path: Path) -> None:
    old, new, usual = (tmp_path / name for name in ("old", "new", "usual"))
    old.write_bytes(b"")
    old.chmod(0o640)
    usual.write_bytes(b"")
    for path in (old, new):
        with atomic_write(path) as file:
            file.write(b"x")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert new.stat().st_mode == usual.stat().st_mode


def test_the_old_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path, kept = tmp_path / "last", tmp_path / "previous"
    for content in (b"1", b"2", b"3"):
        with atomic_write(path, keep=kept) as file:
            file.write(content)
    assert (path.read_bytes(), kept.read_bytes()) == (b"3", b"2")


def test_a_symbolic_link_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to("target")
    for content in (b"1", b"2"):  # the target is missing at first
        with atomic_write(link) as file:
            file.write(content)
        assert link.is_symlink()
        assert target.read_bytes() == content


def test_what_is_no_regular_file_is_written_directly(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with atomic_write(pipe) as file:
        file.write(b"data")
    reader.join(10)
    assert read == [b"data"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["x" * 255, "\U0001f600" * 60])
def test_long_names_are_possible(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as file:
        file.write(b"x")
    assert (tmp_path / name).read_bytes() == b"x"


def test_errors_are_those_of_the_system(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "file", tmp_path / ("x" * 300), tmp_path / "loop"):
        (tmp_path / "loop").unlink(missing_ok=True)
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(OSError), atomic_write(path):  # noqa: PT011 - any
            pass
