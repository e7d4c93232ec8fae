"""The kernel tells of files that change, wherever they are to be."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hsmagent.token import notices
from hsmagent.token.notices import Notices, appeared
from tests.parts.until import async_until


class Told:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.times = 0
        self.notices = Notices(self._tell)

    def _tell(self) -> None:
        self.times += 1


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    told = Told()
    yield told
    told.notices.close()


async def test_of_a_folder_whatever_is_in_it(told: Told, tmp_path: Path) -> None:
    file = tmp_path / "file"
    told.notices.watch([tmp_path])
    assert not told.notices.noticed()
    for change in (
        lambda: file.write_text("made"),
        lambda: file.write_text("changed"),
        lambda: file.rename(tmp_path / "moved"),
        (tmp_path / "moved").unlink,
    ):
        change()
        assert told.notices.noticed()
        assert not told.notices.noticed()


async def test_of_a_file_that_file_alone(told: Told, tmp_path: Path) -> None:
    told.notices.watch([tmp_path / "file"])
    (tmp_path / "other").write_text("")
    assert not told.notices.noticed()
    (tmp_path / "file").write_text("")
    assert told.notices.noticed()


async def test_of_what_is_not_there_yet(told: Told, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "within" / "file"
    told.notices.watch([file])
    for make in (file.parent.parent.mkdir, file.parent.mkdir, file.touch, file.unlink):
        make()
        assert told.notices.noticed()
        told.notices.watch([file])


async def test_of_a_folder_that_goes(told: Told, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    told.notices.watch([folder])
    folder.rmdir()
    assert told.notices.noticed()
    told.notices.watch([folder])
    folder.mkdir()
    assert told.notices.noticed()


async def test_the_loop_is_told(told: Told, tmp_path: Path) -> None:
    told.notices.watch([tmp_path])
    (tmp_path / "file").write_text("")
    await async_until(lambda: told.times)
    await asyncio.sleep(0)
    assert told.notices.noticed()


async def test_without_watches_one_is_blind(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not told.notices.blind
    monkeypatch.setattr(notices, "_MASK", 0)  # EINVAL, as ENOSPC is nobody's to provoke
    told.notices.watch([tmp_path])
    assert told.notices.blind


async def test_that_a_file_has_appeared_wherever_it_was_to_be(tmp_path: Path) -> None:
    never, file = tmp_path / "never", tmp_path / "folder" / "within" / "file"
    waiting = asyncio.ensure_future(appeared([never, file]))
    for make in (file.parent.parent.mkdir, file.parent.mkdir, (file.parent / "other").touch):
        make()
        for _ in range(10):  # the loop sees what the kernel told, and nothing is decided
            await asyncio.sleep(0)
        assert not waiting.done()
    file.touch()
    assert await asyncio.wait_for(waiting, 5)
    assert await appeared([never, file])


async def test_where_the_kernel_tells_nothing_nobody_waits_for_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(notices._LIBC, "inotify_init1", lambda _: -1)
    assert not await appeared([tmp_path / "file"])
