"""Everything that we do on the two buses besides asking, as one thing for the daemon."""

import asyncio
import os
from collections.abc import Callable, Collection

from hsmagent.bus import Bus
from hsmagent.desktop.let_go import Closed, Told
from hsmagent.desktop.logind import Logind
from hsmagent.desktop.notify import Notifications
from hsmagent.desktop.screensaver import ScreenSavers
from hsmagent.desktop.service import Agent, Service
from hsmagent.model import Clock


class Desktop:
    """The watchers, our service and notifications on a session and a system bus.

    Each bus may be absent, hang or die; nobody who uses this object notices.
    """

    def __init__(
        self,
        session: Bus,
        system: Bus,
        *,
        agent: Agent,
        told: Told,
        events: Callable[[], Collection[str]],
        clock: Clock,
    ) -> None:
        self._buses = (session, system)
        self._closed = Closed(told)
        self._logind = Logind(system, self._closed, os.environ.get("XDG_SESSION_ID", ""))
        self._screensavers = ScreenSavers(session, self._closed)
        self.service = Service(session, agent, clock)
        self.notifications = Notifications(session, events, clock)

    async def run(self) -> None:
        """Run the buses and all that is on them, until cancelled."""
        # All of this is only noted down now; a bus asks for it whenever it joins.
        await self._logind.start()
        await self._screensavers.start()
        await self.service.start()
        try:
            async with asyncio.TaskGroup() as group:
                for bus in self._buses:
                    group.create_task(bus.run())
        finally:
            self._logind.stop()
            self._screensavers.stop()
            self.service.stop()
            await self.notifications.stop()
            await self._closed.stop()
