"""The tables of states, walked by real workers and tokens."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from typing import Any

import pytest

from hsmagent.errors import PinError, TokenError, WorkerDied
from hsmagent.model import ModuleSpec, Scheme
from hsmagent.token.member import Deadlines
from hsmagent.token.pool import Pool
from hsmagent.token.states import (
    TOKEN,
    WORKER,
    Life,
    Table,
    TokenEvent,
    TokenState,
    WorkerEvent,
    WorkerState,
)
from hsmagent.token.token import Token
from hsmagent.token.tokens import Tokens
from hsmagent.worker import spec
from hsmagent.worker.link import Link
from tests.parts.token.faulty import FOREVER, Action, Faulty
from tests.parts.token.loaded import token_of, typed
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import async_until
from tests.token.conftest import FakeClock, NewTokens

Step = tuple[Enum, Enum, Enum]
SHORT = Deadlines(start=10, look=5, poll=5, login=5, pin_pad=5, operate=5, close=1)


def steps(table: Table[Any, Any]) -> set[Step]:
    return {(state, event, after) for state, row in table.items() for event, after in row.items()}


class Walk:
    """Notes every step that a life takes to another state."""

    def __init__(self) -> None:
        self.taken: set[Step] = set()

    def of(self, table: Table[Any, Any]) -> set[Step]:
        return self.taken & steps(table)


@pytest.fixture
def walk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    walk = Walk()
    take, token_take = Life.take, Token._take

    def noting(life: Life[Any, Any], event: Enum) -> bool:
        before = life.state
        changed = take(life, event)
        if changed:
            walk.taken.add((before, event, life.state))
        return changed

    def checked(token: Token, event: TokenEvent, why: str = "") -> Any:
        logouts = token_take(token, event, why)
        kept = token._pool.has_login(token.id)
        assert token._life.state is TokenState.OPEN or not kept, (event, token._life.state)
        return logouts

    monkeypatch.setattr(Life, "take", noting)
    monkeypatch.setattr(Token, "_take", checked)
    yield walk
    assert walk.taken <= steps(WORKER) | steps(TOKEN)


async def load(faulty: Faulty, new_tokens: NewTokens, *, workers: int = 1) -> Tokens:
    faulty.set(slot_flags=spec.CKF_REMOVABLE_DEVICE | spec.CKF_HW_SLOT)
    tokens = new_tokens(deadlines=SHORT)
    await tokens.add(ModuleSpec(faulty.module, workers, env=faulty.env))
    return tokens


async def running(tokens: Tokens) -> None:
    await async_until(lambda: tokens.modules()[0].state == "running")


async def kill(tokens: Tokens) -> None:
    """Kill the worker and see it replaced."""
    (pid,) = tokens.modules()[0].pids
    os.kill(pid, signal.SIGKILL)
    await async_until(lambda: tokens.modules()[0].pids != (pid,))
    await running(tokens)


async def under_way(faulty: Faulty, login: "asyncio.Future[bool]", logins: int) -> None:
    """Return while the module is in its C_Login, before our loop can learn how it ended."""
    async with asyncio.timeout(20):
        while faulty.calls("C_Login") < logins:
            assert not login.done()
            await asyncio.sleep(0)


# -- workers ---------------------------------------------------------------------------------


async def test_workers_take_every_step_of_their_table(
    own_hsm: SoftHsm, faulty: Faulty, new_tokens: NewTokens, walk: Walk
) -> None:
    own_hsm.init_token("other")
    tokens = await load(faulty, new_tokens)
    one, other = (tokens.token(status.id) for status in tokens.statuses())
    await kill(tokens)  # while UP
    await one.login(typed(PIN))
    await one.logout()  # RETIRING
    await other.login(typed(PIN))
    again = asyncio.ensure_future(one.login(typed(PIN)))
    await under_way(faulty, again, 3)
    await other.logout()
    await again
    assert one.logged_in  # KEPT
    faulty.strike("C_Logout", Action.HANG)
    leaving = asyncio.ensure_future(one.logout())
    await asyncio.sleep(0)
    await tokens.close()  # while RETIRING
    await leaving
    faulty.heal()
    await (await load(faulty, new_tokens)).close()  # while UP
    await close_while_starting(faulty, new_tokens)
    await close_while_down(faulty, new_tokens)
    await close_while_broken(new_tokens)
    assert walk.of(WORKER) == steps(WORKER)


async def close_while_starting(faulty: Faulty, new_tokens: NewTokens) -> None:
    faulty.strike("C_Initialize", Action.HANG)
    tokens = new_tokens(deadlines=SHORT)
    loading = asyncio.ensure_future(tokens.add(ModuleSpec(faulty.module, env=faulty.env)))
    await asyncio.sleep(0.1)
    await tokens.close()
    await loading
    faulty.heal()


async def close_while_down(faulty: Faulty, new_tokens: NewTokens) -> None:
    """Close while no worker is there: one that keeps crashing is started ever more slowly."""
    faulty.strike("C_GetSlotList", Action.CRASH, times=FOREVER)
    tokens = await load(faulty, new_tokens)
    await async_until(lambda: faulty.calls("C_Initialize") > 2 and not tokens.modules()[0].pids)
    await tokens.close()
    faulty.heal()


async def close_while_broken(new_tokens: NewTokens) -> None:
    tokens = new_tokens(deadlines=SHORT)
    await tokens.add(ModuleSpec("/nonexistent/module.so"))
    await tokens.refresh()  # tried once more, since somebody asks
    await tokens.close()


async def test_a_module_that_cannot_be_loaded_is_tried_once_for_two_who_ask(
    new_tokens: NewTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = new_tokens(deadlines=SHORT)
    await tokens.add(ModuleSpec("/nonexistent/module.so"))
    pool = tokens._modules["/nonexistent/module.so"].pool
    spawned = []
    spawn = Pool._spawn

    def counting(pool: Pool, *listeners: Any) -> Link:
        spawned.append(spawn(pool, *listeners))
        return spawned[-1]

    monkeypatch.setattr(Pool, "_spawn", counting)
    looks = [pool.look(objects=False) for _ in range(2)]
    answers = await asyncio.gather(*looks, return_exceptions=True)
    assert len(spawned) == 1
    assert [type(answer) for answer in answers] == [WorkerDied, WorkerDied]


# -- tokens ----------------------------------------------------------------------------------


async def test_a_token_takes_every_step_of_its_table(
    faulty: Faulty, new_tokens: NewTokens, clock: FakeClock, walk: Walk
) -> None:
    tokens = await load(faulty, new_tokens)
    token = token_of(tokens)
    await token.login(typed(PIN))
    await token.logout()
    await token.login(typed(PIN))
    await kill(tokens)  # LOST
    assert not token.logged_in
    await token.login(typed(PIN))
    clock.now += 901
    with suppress(TokenError):
        await tokens.signers()[0].sign(Scheme.ECDSA_SHA256, b"")  # EXPIRED
    await token.login(typed(PIN))
    faulty.unplug()
    await async_until(lambda: not token.present)
    faulty.plug()
    await async_until(lambda: token.present)
    faulty.unplug()
    await async_until(lambda: not token.present)
    faulty.plug()
    await async_until(lambda: token.present)
    await running(tokens)
    login = asyncio.ensure_future(token.login(typed(PIN)))
    await under_way(faulty, login, faulty.calls("C_Login") + 1)
    token.unseen()  # as a look tells that came between
    await login
    assert token.logged_in
    assert token.present
    logouts = faulty.calls("C_Logout")
    token.unseen()  # the worker that is logged in has not noticed
    assert not token.logged_in
    await async_until(lambda: faulty.calls("C_Logout") == logouts + 1)
    # What one login at a time rules out, and ends in the safe state should it ever be.
    ruled_out = {(TokenState.OPEN, TokenEvent.OVERTAKEN, TokenState.LOCKED)}
    assert walk.of(TOKEN) == steps(TOKEN) - ruled_out


async def test_a_login_that_was_overtaken_is_undone_on_every_worker(
    faulty: Faulty, new_tokens: NewTokens, walk: Walk
) -> None:
    tokens = await load(faulty, new_tokens, workers=2)
    token = token_of(tokens)
    login = asyncio.ensure_future(token.login(typed(PIN)))
    await under_way(faulty, login, 2)  # the first has accepted it, the second is asked
    await token.logout()
    with pytest.raises(PinError, match="was locked while"):
        await login
    await async_until(lambda: faulty.calls("C_Logout") == 2)
    assert not token.logged_in
    assert await token.login(typed(PIN))
    assert walk.taken


# -- the tables themselves -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "states", "events", "start"),
    [
        (WORKER, WorkerState, WorkerEvent, WorkerState.DOWN),
        (TOKEN, TokenState, TokenEvent, TokenState.ABSENT),
    ],
)
def test_a_table_is_sound(
    table: Table[Any, Any], states: type[Enum], events: type[Enum], start: Enum
) -> None:
    assert set(table) == set(states)
    reached, more = {start}, {start}
    while more:
        more = {after for state in more for after in table[state].values()} - reached
        reached |= more
    assert reached == set(states)
    for state in states:
        for event in set(events) - set(table[state]):
            life = Life(table, state)
            assert not life.take(event)
            assert life.state is state


def test_a_closed_pool_stays_closed_from_wherever_it_was() -> None:
    for state in WorkerState:
        life = Life(WORKER, state)
        life.take(WorkerEvent.CLOSE)
        assert life.state is WorkerState.CLOSED
        for event in WorkerEvent:
            assert not life.take(event)


def test_only_an_accepted_pin_opens_a_token_and_whatever_ends_its_login_closes_it() -> None:
    opening = {event for _, event, after in steps(TOKEN) if after is TokenState.OPEN}
    assert opening == {TokenEvent.ACCEPTED}
    closing = set(TokenEvent) - {TokenEvent.ACCEPTED, TokenEvent.SEEN}
    assert set(TOKEN[TokenState.OPEN]) == closing


# -- what it costs ---------------------------------------------------------------------------


async def test_one_login_tells_little_and_works_a_status_out_as_rarely(
    faulty: Faulty, new_tokens: NewTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    worked_out = 0
    work_out = Token._work_out_status

    def counting(token: Token) -> Any:
        nonlocal worked_out
        worked_out += 1
        return work_out(token)

    monkeypatch.setattr(Token, "_work_out_status", counting)
    tokens: Tokens = new_tokens(on_change=lambda: told.append(tokens.statuses()))
    await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
    await asyncio.sleep(0.01)
    before = len(told)
    worked_out = 0
    await token_of(tokens).login(typed(PIN))
    for _ in range(9):
        tokens.statuses()
    await asyncio.sleep(0.01)
    assert [statuses[0].logged_in for statuses in told[before:]] == [True]
    assert worked_out <= 2
    before = len(told)
    await token_of(tokens).look()  # nothing new
    await asyncio.sleep(0.01)
    assert len(told) == before


async def test_what_changes_in_one_turn_is_told_once(faulty: Faulty, new_tokens: NewTokens) -> None:
    told: list[bool] = []
    tokens: Tokens = new_tokens(on_change=lambda: told.append(tokens.statuses()[0].present))
    await tokens.add(ModuleSpec(faulty.module, env=faulty.env))
    await asyncio.sleep(0.01)
    told.clear()
    token = token_of(tokens)
    token.unseen()
    token.login_ended("of no account")
    assert told == []
    assert not tokens.statuses()[0].present  # whoever looks himself sees it at once
    await asyncio.sleep(0.01)
    assert told == [False]
