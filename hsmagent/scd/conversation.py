"""One conversation with GnuPG's agent: commands go to our card, or to the real scdaemon."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from hsmagent import assuan
from hsmagent.assuan import Request
from hsmagent.errors import HsmAgentError, ProtocolError
from hsmagent.frame import wipe
from hsmagent.scd import route
from hsmagent.scd.card import SERIAL
from hsmagent.scd.commands import Commands
from hsmagent.scd.commands import Shared as SharedByCommands
from hsmagent.scd.daemon import Daemon
from hsmagent.scd.errors import SCD, Code, Failed, code_of
from hsmagent.scd.real import Client as RealClient
from hsmagent.scd.real import RealConnection, RealScdaemon

_PIECE = 400  # bytes of data in one line, in hex


class Shared(SharedByCommands, Protocol):
    """What all conversations share."""

    real: RealScdaemon

    def end(self) -> None:
        """End the whole process."""


class Client(RealClient, Protocol):
    """The other end."""

    async def write(self, data: bytes | bytearray) -> None:
        """Send whole lines."""


class Conversation:
    """One client's commands and our answers."""

    def __init__(self, client: Client, daemon: Daemon, shared: Shared) -> None:
        self._client = client
        self._daemon = daemon
        self._shared = shared
        self._commands = Commands(daemon, shared)
        self._real: RealConnection | None = None
        self._chosen = False  # whether a card of the real scdaemon is chosen, and not ours
        self._choice = b""  # the command by which the client has chosen a card
        self._over = False

    def left_alone(self) -> bool:
        """Take note that the client has gone; return whether a key is being used for it."""
        self._commands.alone = True
        return self._commands.asks

    async def run(self) -> None:
        """Answer commands until the client has gone or says so."""
        await self._client.write(assuan.ok("hsmagent at your service"))
        while not self._over and (line := await self._client.line()) is not None:
            try:
                await self._respond(line)
            finally:
                wipe(line)

    async def close(self) -> None:
        """Hang up on the daemon and on the real scdaemon."""
        self._commands.forget()
        self._daemon.close()
        await self._let_go()

    async def _respond(self, line: bytearray) -> None:
        if not line or line.startswith(b"#"):
            return
        try:
            reply = await self._answer(assuan.request(line), bytes(line))
        except HsmAgentError as error:
            reply = assuan.err(code_of(error), f"{' '.join(str(error).split())} <SCD>", SCD)
        await self._client.write(reply)

    async def _answer(self, request: Request, line: bytes) -> bytes:
        """Return the reply; empty if the real scdaemon has replied."""
        match request.name:
            case "RESET" | "RESTART":
                self._commands.forget()
                self._choice = b""
                await self._let_go()
                return assuan.ok()
            case "BYE" | "KILLSCD":
                self._over = True
                if request.name == "KILLSCD":
                    self._shared.end()
                return assuan.ok("closing connection")
            case "SERIALNO" if not request.options and not request.words:
                return await self._any_card(request)
            case _ if await self._is_foreign(request):
                return await self._pass_on(request, line)
            case "SERIALNO" | "LEARN":
                return await self._our_card(request, line)
        return await self._commands.carry_out(request) + assuan.ok()

    async def _is_foreign(self, request: Request) -> bool:
        foreign = route.is_foreign(request, self._shared.card, chosen=self._chosen)
        if foreign and request.name in route.BY_NAME:
            with suppress(HsmAgentError):  # then the card is as it was seen last
                await self._commands.look()
            foreign = route.is_foreign(request, self._shared.card, chosen=self._chosen)
            foreign = foreign and not self._shared.has_learned(request.last)
        return foreign

    # -- which card --------------------------------------------------------------------------

    async def _our_card(self, request: Request, line: bytes) -> bytes:
        """Answer for our card; where there is none, the real scdaemon may have one.

        Where there is no card at all, it is ours that was chosen: GnuPG begins the use of a key by
        choosing, asks for a card by a dialog of its own if that fails, and shows what is wrong only
        when it comes from the use itself.
        """
        try:
            lines = await self._commands.carry_out(request)
        except HsmAgentError as ours:
            if "demand" not in request.options:
                with suppress(Failed):
                    return await self._pass_on(request, line, only_if_done=True)
            if request.name not in route.CHOOSING:
                raise ours from None
            lines = assuan.status("SERIALNO", SERIAL)
        if request.name in route.CHOOSING:
            self._chosen, self._choice = False, line
        return lines + assuan.ok()

    async def _any_card(self, request: Request) -> bytes:
        """Choose a card for `gpg --card-status` and its kin: an OpenPGP card, else ours."""
        with suppress(Failed):
            return await self._pass_on(request, b"SERIALNO openpgp", only_if_done=True)
        self._choice = b"SERIALNO"
        return await self._commands.carry_out(request) + assuan.ok()

    # -- the real scdaemon -------------------------------------------------------------------

    async def _pass_on(self, request: Request, line: bytes, *, only_if_done: bool = False) -> bytes:
        """Have the real scdaemon reply. Raises Failed if it cannot.

        only_if_done: have it carried out without a client first, so that none sees it fail.
        """
        done = False
        try:
            real = await self._connected()
            if only_if_done and not await real.ask(line):
                raise Failed(Code.CARD_NOT_PRESENT, "the real scdaemon has no card")
            if request.name.startswith("PK"):
                for each in _setdata(bytes(self._commands.data)):
                    await real.ask(each)
                self._commands.forget()
            done = await real.pass_on(line, self._client)
        except ProtocolError:
            raise Failed(Code.ENODEV, "the real scdaemon has ended") from None
        finally:
            self._chosen |= done and (request.name in route.CHOOSING or only_if_done)
            if not done and not self._chosen:
                await self._let_go()
        return b""

    async def _connected(self) -> RealConnection:
        if self._real is None:
            self._real = await self._shared.real.connect()
            if self._choice:  # it has to look for its cards before it knows their keys
                await self._real.ask(self._choice)
        return self._real

    async def _let_go(self) -> None:
        self._chosen = False
        real, self._real = self._real, None
        if real is not None:
            await real.close()


def _setdata(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        append = "--append " if start else ""
        yield f"SETDATA {append}{data[start : start + _PIECE].hex().upper()}".encode()
