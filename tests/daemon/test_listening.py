"""Where the sockets lie: who may reach them, and what may lie there already."""

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from hsmagent.daemon import listening
from hsmagent.daemon.listening import listen, make_folder
from hsmagent.errors import UsageError


def test_the_folder_and_the_socket_are_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    make_folder(folder)
    bound = listen(folder / "s")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600
    bound.close()


def test_an_open_folder_of_ours_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(UsageError, match="not a directory of ours"):
        make_folder(tmp_path / "link")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/hsmagent")):
        with pytest.raises(UsageError, match="cannot make the folder"):
            make_folder(folder)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    listen(tmp_path / "s").close()
    assert (tmp_path / "s").exists()
    listen(tmp_path / "s").close()


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    first = listen(tmp_path / "s")
    with pytest.raises(UsageError, match="another agent already answers"):
        listen(tmp_path / "s")
    probe = socket.socket(socket.AF_UNIX)
    probe.connect(str(tmp_path / "s"))
    probe.close()
    first.close()


def test_a_file_in_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(UsageError, match="is not a socket"):
        listen(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot listen in .*none"):
        listen(tmp_path / "none" / "s")


def test_whoever_locks_the_folder_delays_us_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "LOCK_SECONDS", 0.1)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    listen(tmp_path / "s").close()
    os.close(other)


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot listen at"):
        listen(tmp_path / ("x" * 200))
