"""All findings, and how a terminal shows them."""

import asyncio
from collections.abc import AsyncIterator

from hsmagent.doctor import (
    agent,
    desktop,
    gnupg,
    mail,
    modules,
    pkcs11,
    sandboxes,
    sessions,
    tokens,
)
from hsmagent.doctor.finding import Finding, State, Surroundings

_MARKS = {State.OK: "\N{CHECK MARK}", State.WARN: "!", State.BAD: "\N{BALLOT X}"}
_COLOURS = {State.OK: "32", State.WARN: "33", State.BAD: "31"}


async def findings(where: Surroundings) -> AsyncIterator[Finding]:
    """Look at everything, and yield what is found as it is found. Runs without a daemon too."""
    config, settings = modules.configuration(where)
    yield config
    daemon, status = await asyncio.to_thread(agent.ask_daemon, where)
    yield daemon
    found: list[Finding | None] = []
    if status is not None:
        found += modules.from_status(status, settings)
        found += tokens.of_daemon(status, settings)
    elif settings is not None:
        found += await modules.looked_at(settings)
    if settings is not None:
        found += [await modules.smart_cards(modules.paths(settings)), modules.exclusive(settings)]
        found += [pkcs11.served(settings), pkcs11.seen_twice(where, settings)]
        found += await asyncio.to_thread(sandboxes.all_of, where)
        found += await asyncio.to_thread(gnupg.served, where, settings)
    for each in found:
        if each is not None:
            yield each
    for one in await _ways_to_the_agent(where):
        yield one
    if status is not None:
        yield await agent.lists_keys(where, status)
        for each in await asyncio.to_thread(mail.identities, where):
            yield each
    pinentry = settings.prompt.pinentry if settings is not None else ""
    for each in (*await desktop.prompters(where, pinentry), *await desktop.systemd(where)):
        yield each


async def _ways_to_the_agent(where: Surroundings) -> list[Finding]:
    found = [agent.programs(where), agent.ssh_auth_sock(where), await sessions.login_shell(where)]
    of_ssh = await agent.ssh_config(where)
    # What holds for all hosts is not said again for each host.
    of_hosts = agent.per_host(where) if of_ssh is None else (of_ssh,)
    return [*(each for each in found if each is not None), *of_hosts]


def text(finding: Finding, *, colour: bool) -> str:
    """Lay a finding out: a mark and the sentence, and the remedy below."""
    mark = _MARKS[finding.state]
    if colour:
        mark = f"\x1b[1;{_COLOURS[finding.state]}m{mark}\x1b[0m"
    shown = f"{mark} {finding.sentence}\n"
    return shown + (f"    → {finding.remedy}\n" if finding.remedy else "")


def total(found: list[Finding]) -> str:
    """Return the line at the end: how many things are wrong or to look at."""
    bad = sum(each.state is State.BAD for each in found)
    warn = sum(each.state is State.WARN for each in found)
    return f"\n{bad} wrong, {warn} to look at\n" if bad or warn else "\nall is well\n"
