"""The face socket: there while the configuration wants PKCS#11 programs or GnuPG to be served."""

import os
import socket
from functools import partial

from hsmagent.control.client import CONTROL_MAX_FRAME, FACE
from hsmagent.control.face import Face, FaceConversation
from hsmagent.daemon.connection import Send
from hsmagent.daemon.handed import HandedConnection, HangUps
from hsmagent.daemon.listening import Sockets
from hsmagent.daemon.server import Server
from hsmagent.daemon.turns import Turns
from hsmagent.who.peer import peer_of, starter_of


class FaceSocket:
    """The socket and its server. Make it in a running loop.

    A socket that systemd made is served in any case, to say what the configuration lacks.
    """

    def __init__(self, face: Face, sockets: Sockets, turns: Turns) -> None:
        self._face = face
        self._sockets = sockets
        self._turns = turns
        self._server: Server | None = None
        self._hang_ups: HangUps | None = None

    async def follow(self) -> None:
        """Serve, or serve no longer, as the configuration has it now. Raises UsageError."""
        self._face.changed()
        wanted = FACE in self._sockets.given or bool(self._face.serves())
        if wanted and self._server is None:
            listening = self._sockets.listen(FACE)
            self._hang_ups = HangUps()
            self._server = Server(
                listening,
                self._conversation,
                uids={os.getuid()},
                turns=self._turns,
                limit=CONTROL_MAX_FRAME,
                share=1,  # one process serves all PKCS#11 programs
                connection=partial(HandedConnection, self._hang_ups),
            )
            await self._server.start()
        elif not wanted and self._server is not None:
            self._sockets.unbind(FACE)
            await self.close()

    def _conversation(self, sock: socket.socket, send: Send) -> FaceConversation:
        own = peer_of(sock)
        return FaceConversation(self._face, own, lambda: starter_of(own()), send)

    def changed(self) -> None:
        """Take in that tokens or keys have changed."""
        self._face.changed()

    async def close(self) -> None:
        """End every connection, and serve no longer."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()
        if self._hang_ups is not None:
            self._hang_ups.close()
            self._hang_ups = None
