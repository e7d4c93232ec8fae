"""Our presence on the desktop: the two buses, the prompters, the watchers, what we show.

All of it may be absent, hang or die; the ssh side neither waits for it nor notices.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from hsmagent.bus import Bus, session_address, system_address
from hsmagent.config.file import Config
from hsmagent.daemon.settings import token_entry
from hsmagent.desktop.desktop import Desktop
from hsmagent.desktop.let_go import Told
from hsmagent.desktop.service import Agent
from hsmagent.model import Clock, PinState, Request, TokenId, TokenStatus
from hsmagent.prompt.askpass import Askpass
from hsmagent.prompt.base import Prompter
from hsmagent.prompt.chain import Chain
from hsmagent.prompt.environment import SessionEnvironment
from hsmagent.prompt.pin_store import PinStore
from hsmagent.prompt.pinentry import Pinentry
from hsmagent.prompt.system import SystemPrompter, Timeouts

_WORSE = (PinState.COUNT_LOW, PinState.FINAL_TRY, PinState.LOCKED)


class Presence:
    """The desktop as the daemon needs it.

    settings: the configuration as it is now; agent, told: what the bus may do with us.
    """

    def __init__(
        self,
        settings: Callable[[], Config],
        *,
        agent: Agent,
        told: Told,
        state: Path,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._session = Bus(lambda: session_address(os.environ))
        self._environment = SessionEnvironment(self._session)
        self._chain = Chain((), self._environment, clock)
        self._store = PinStore(self._session, state)
        self._desktop = Desktop(
            self._session,
            Bus(lambda: system_address(os.environ), "system"),
            agent=agent,
            told=told,
            events=lambda: settings().notify,
            clock=clock,
        )
        self._before: dict[TokenId, TokenStatus] = {}

    async def run(self) -> None:
        """Be there until cancelled."""
        await self._desktop.run()

    # -- asking ------------------------------------------------------------------------------

    def prompter(self) -> Prompter:
        """Return what asks, by the configuration as it is now."""
        prompt = self._settings().prompt
        seconds = prompt.timeout
        made: dict[str, Prompter] = {
            "system": SystemPrompter(self._session, Timeouts(turn=seconds, answer=seconds)),
            "pinentry": Pinentry(self._environment, seconds),
            "askpass": Askpass(self._environment, seconds),
        }
        self._chain.configure([made[name] for name in prompt.order])
        return self._chain

    def store(self, token: TokenId) -> PinStore | None:
        """Return the PIN store, for a token whose PIN may be kept."""
        entry = token_entry(self._settings(), token)
        return self._store if entry is not None and entry.pin_store else None

    async def forget_pin(self, token: TokenId) -> bool:
        """Delete a stored PIN; says whether there is none any more, for sure."""
        return await self._store.forget(token)

    # -- telling -----------------------------------------------------------------------------

    def used(self, request: Request, outcome: str) -> None:
        """Tell that a request was carried out, or was not."""
        self._desktop.service.used(request, outcome)
        if outcome == "used":
            self._desktop.notifications.used(request)

    def waiting(self, token: TokenId) -> AbstractContextManager[None]:
        """Tell, if the block takes long, that the token waits for a touch."""
        return self._desktop.notifications.waiting(token)

    def look(self, statuses: Sequence[TokenStatus]) -> None:
        """Compare the tokens with what they were, and tell what a person should know."""
        self._desktop.service.changed()
        now = {status.id: status for status in statuses}
        for token, before in self._before.items():
            after = now.get(token)
            gone = after is None or not after.present
            if gone and before.present and before.logged_in:
                self._desktop.notifications.removed(token)
            elif after is not None and _is_worse(before.pin_state, after.pin_state):
                self._desktop.notifications.wrong_pin(token, after.pin_state)
        self._before = now


def _is_worse(before: PinState, after: PinState) -> bool:
    order = (PinState.OK, *_WORSE)
    return after in _WORSE and before in order and order.index(after) > order.index(before)
