"""What every worker has, whatever runs in it; modules and their faults are in tests/token."""

import asyncio
import os
import signal

import pytest

from hsmagent.errors import WorkerDied
from hsmagent.worker.link import Link
from hsmagent.worker.messages import Done, Poll
from hsmagent.worker.process import Program

ECHO = Program("tests.parts.token.worker_echo", "the echo", ("hello",), (("ECHO", "world"),))


def link_to(program: Program, lost: list[str]) -> Link:
    return Link(program, start_seconds=10, on_room=lambda: None, on_lost=lost.append)


async def test_a_worker_runs_the_main_that_it_is_given() -> None:
    lost: list[str] = []
    link = link_to(ECHO, lost)
    assert await link.ready == Done()
    assert await link.request(Poll(), 10) == Done(b"hello world")
    link.kill("enough")
    await link.exited
    assert lost == ["enough"]
    with pytest.raises(WorkerDied, match="the echo has ended"):
        await link.request(Poll(), 10)


async def test_the_name_of_what_runs_is_told_when_it_dies() -> None:
    lost: list[str] = []
    link = link_to(ECHO, lost)
    await link.ready
    os.kill(link.pid, signal.SIGKILL)
    await asyncio.wait_for(link.exited, 10)
    with pytest.raises(WorkerDied):
        await link.request(Poll(), 10)
    assert lost == ["the echo crashed and was restarted"]


async def test_a_main_that_is_not_there() -> None:
    lost: list[str] = []
    link = link_to(Program("hsmagent.worker.nothing", "nothing"), lost)
    with pytest.raises(WorkerDied, match="nothing crashed"):
        await link.ready
    await link.exited
