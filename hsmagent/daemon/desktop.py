"""The desktop for the daemon: both buses, prompters, watchers, our service and notifications.

All of it may be absent, hang or die; the ssh side neither waits for it nor notices.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hsmagent.bus import Bus, session_address, system_address
from hsmagent.config.file import Config, PromptConfig
from hsmagent.daemon.settings import token_entry
from hsmagent.desktop.let_go import Closed, Told
from hsmagent.desktop.logind import Logind
from hsmagent.desktop.notify import Notifications
from hsmagent.desktop.screensaver import ScreenSavers
from hsmagent.desktop.service import Agent, Service
from hsmagent.door.activity import FAILED, USED
from hsmagent.model import PKCS11_PURPOSES, Clock, Request, TokenId, TokenStatus
from hsmagent.prompt.ask_here import Asked, AskHere
from hsmagent.prompt.askpass import Askpass
from hsmagent.prompt.base import Prompter
from hsmagent.prompt.chain import Chain
from hsmagent.prompt.environment import SessionEnvironment
from hsmagent.prompt.pin_store import PinStore
from hsmagent.prompt.pinentry import Pinentry
from hsmagent.prompt.system import SystemPrompter, Timeouts
from hsmagent.token.notices import appeared


class Desktop:
    """Everything of ours on the session bus and the system bus.

    settings: returns the configuration that holds now. agent, told: what is called for programs on
    the buses. asked: told of each question in a terminal. prompter: asks by whatever prompters the
    configuration names.
    """

    def __init__(
        self,
        settings: Callable[[], Config],
        *,
        agent: Agent,
        told: Told,
        state: Path,
        clock: Clock,
        asked: Asked,
    ) -> None:
        self._settings = settings
        self._session = Bus(lambda: session_address(os.environ), appeared=appeared)
        self._system = Bus(lambda: system_address(os.environ), "system", appeared)
        self._environment = SessionEnvironment(self._session)
        self.ask_here = AskHere(lambda: settings().prompt.timeout, asked)
        self.prompter = Chain((), self._environment, clock, last=self.ask_here)
        self._store = PinStore(self._session, state)
        self._closed = Closed(told)
        self._watchers = (
            Logind(self._system, self._closed, os.environ.get("XDG_SESSION_ID", "")),
            ScreenSavers(self._session, self._closed),
        )
        self._service = Service(self._session, agent, clock)
        self.notifications = Notifications(self._session, lambda: settings().notify, clock)
        self._before: dict[TokenId, TokenStatus] = {}
        self.configure()

    async def run(self) -> None:
        """Run the buses and all that is on them, until cancelled."""
        # All of this is only noted down now; a bus asks for it whenever it joins.
        for watcher in self._watchers:
            await watcher.start()
        await self._service.start()
        try:
            async with asyncio.TaskGroup() as group:
                for bus in (self._session, self._system):
                    group.create_task(bus.run())
        finally:
            for watcher in self._watchers:
                watcher.stop()
            self._service.stop()
            await self.notifications.stop()
            await self._closed.stop()

    # -- asking ------------------------------------------------------------------------------

    def configure(self) -> None:
        """Ask by the prompters that the configuration names now."""
        prompt = self._settings().prompt
        made = self._prompters(prompt)
        self.prompter.configure([made[name] for name in prompt.order])

    def _prompters(self, prompt: PromptConfig) -> dict[str, Prompter]:
        seconds = prompt.timeout
        return {
            "system": SystemPrompter(self._session, Timeouts(turn=seconds, answer=seconds)),
            "pinentry": Pinentry(self._environment, seconds, prompt.pinentry),
            "askpass": Askpass(self._environment, seconds),
        }

    def store(self, token: TokenId) -> PinStore | None:
        """Return the PIN store, for a token whose PIN may be kept."""
        entry = token_entry(self._settings(), token)
        return self._store if entry is not None and entry.pin_store else None

    async def forget_pin(self, token: TokenId) -> bool:
        """Delete a stored PIN. Return whether it is deleted for sure."""
        return await self._store.forget(token)

    # -- telling -----------------------------------------------------------------------------

    def used(self, request: Request, outcome: str, reason: str) -> None:
        """Tell that a request was carried out, or was not and why."""
        self._service.used(request, outcome)
        if outcome == USED:
            self.notifications.used(request)
        elif outcome == FAILED or request.purpose.kind in PKCS11_PURPOSES:
            self.notifications.not_done(request, reason)

    def look(self, statuses: Sequence[TokenStatus]) -> None:
        """Compare the tokens with what they were, and tell what a person should know."""
        self._service.changed()
        now = {status.id: status for status in statuses}
        for token, before in self._before.items():
            after = now.get(token)
            gone = after is None or not after.present
            if gone and before.present and before.logged_in:
                self.notifications.removed(token)
            elif after is not None and after.pin_state.is_worse_than(before.pin_state):
                self.notifications.wrong_pin(token, after.pin_state)
        self._before = now
