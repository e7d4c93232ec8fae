"""All findings, and how a terminal shows them."""

import asyncio

from hsmagent.doctor import agent, desktop, modules
from hsmagent.doctor.finding import Finding, State, Surroundings

_MARKS = {State.OK: "\N{CHECK MARK}", State.WARN: "!", State.BAD: "\N{BALLOT X}"}
_COLOURS = {State.OK: "32", State.WARN: "33", State.BAD: "31"}


async def findings(where: Surroundings) -> list[Finding]:
    """Look at everything. Runs without a daemon too."""
    config, settings = modules.configuration(where)
    daemon, status = await asyncio.to_thread(agent.ask_daemon, where)
    found: list[Finding | None] = [config, daemon]
    if status is not None:
        found += modules.from_status(status, settings)
    elif settings is not None:
        found += await modules.looked_at(settings)
    if settings is not None:
        found.append(modules.pcscd(modules.paths(settings)))
    found.append(agent.ssh_auth_sock(where))
    found.append(await agent.ssh_config(where))
    if status is not None:
        found.append(await agent.lists_keys(where))
    found += await desktop.prompters(where)
    found += await desktop.systemd(where)
    return [each for each in found if each is not None]


def text(found: list[Finding], *, colour: bool) -> str:
    """Lay them out: a mark and a sentence each, the remedy below it, a sum at the end."""
    lines = []
    for each in found:
        mark = _MARKS[each.state]
        lines.append(f"{_paint(mark, each.state) if colour else mark} {each.sentence}")
        if each.remedy:
            lines.append(f"    → {each.remedy}")
    bad = sum(each.state is State.BAD for each in found)
    warn = sum(each.state is State.WARN for each in found)
    lines += ["", f"{bad} wrong, {warn} to look at" if bad or warn else "all is well"]
    return "\n".join(lines) + "\n"


def _paint(mark: str, state: State) -> str:
    return f"\x1b[1;{_COLOURS[state]}m{mark}\x1b[0m"
