"""An ssh agent on a socket, in a thread of this process: for the real clients of the ssh side.

The door lets everything pass, and the tokens' keys are made here: what is tested is the protocol.
"""

import asyncio
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmagent.daemon.listening import listen
from hsmagent.daemon.server import Server
from hsmagent.daemon.sk_helper import SkHelper
from hsmagent.daemon.turns import Turns
from hsmagent.errors import Refused
from hsmagent.model import Key, Operation, Peer, Process, Request, Signer, TokenId
from hsmagent.ssh import keys
from hsmagent.ssh.agent import Agent
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.sk_helper import Helper
from hsmagent.ssh.software import PrivateKey, SoftwareSigner, at_once

T = TypeVar("T")

TOKEN = TokenId("/usr/lib/softhsm/libsofthsm2.so", "work", "1234", "SoftHSM v2")
PEER = Peer(os.getuid(), Process(1, "ssh"), (Process(2, "git"),))


class OpenDoor:
    """Lets every request pass, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refuse: Callable[[Request], bool] = lambda _: False

    async def perform(self, request: Request, operation: Operation) -> bytes:
        self.requests.append(request)
        if self.refuse(request):
            raise Refused("the person said no")
        return await operation(None)

    def refused(self, request: Request, reason: str) -> None:
        self.requests.append(request)


class TestProviders:
    """Providers by name; each with the signers it would load and the PIN it wants."""

    __test__ = False

    def __init__(self) -> None:
        self.known: dict[str, tuple[bytes, list[Signer]]] = {}
        self.added: list[str] = []
        self.removed: list[str] = []

    async def add(self, provider: str, pin: bytearray) -> Sequence[Signer]:
        await asyncio.sleep(0)
        wanted, signers = self.known.get(provider, (b"", []))
        if bytes(pin) not in (wanted, b""):
            raise Refused("wrong PIN")
        self.added.append(provider)
        return signers

    async def remove(self, provider: str) -> bool:
        self.removed.append(provider)
        if provider in self.added:
            self.added.remove(provider)
            return True
        return False


def token_signer(
    private: PrivateKey, label: str = "ssh", token: TokenId | None = TOKEN
) -> SoftwareSigner:
    """Return a signer that claims to live in a token."""
    plain = keys.describe(private.public_key())
    key = Key(plain.spki, plain.key_type, plain.bits, plain.curve, label, token, b"\x01")
    return SoftwareSigner(private, key)


def new_keys() -> list[PrivateKey]:
    """Make an RSA, a P-256 and an Ed25519 key."""
    return [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ]


class Parts:
    """An agent and everything it was made of, for one test."""

    def __init__(
        self,
        signers: Sequence[Signer] = (),
        options: AgentOptions | None = None,
        sk_helper: Helper | None = None,
    ) -> None:
        self.now = 1000.0
        self.signers = list(signers)
        self.door = OpenDoor()
        self.providers = TestProviders()
        self.described: list[bytes] = []
        self.known_hosts: set[bytes] = set()
        self.agent = Agent(
            door=self.door,
            tokens=lambda: self.signers,
            providers=self.providers,
            sk_helper=sk_helper or SkHelper(os.environ),
            clock=lambda: self.now,
            sleep=self._sleep,
            aside=at_once,
            soon=lambda call: call(),
            describe=self._describe,
            knows_host=lambda host_key, _authority: host_key in self.known_hosts,
            options=options or AgentOptions(),
        )

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _describe(self, blob: bytes, peer: Peer) -> str:
        self.described.append(blob)
        return "host.example.org"


class Served:
    """Parts behind a socket in `path`. `run` is for real clients."""

    def __init__(self, parts: Parts, path: Path) -> None:
        self.parts = parts
        self.path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def start(self) -> None:
        """Listen."""
        self._server = Server(
            listen(self.path),
            lambda _sock, _send: self.parts.agent.connection(lambda: PEER),
            uids={os.getuid()},
            turns=Turns(time.monotonic),
        )
        self._thread.start()
        self.call(self._server.start())

    def stop(self) -> None:
        """Close the socket and end the thread."""
        self.call(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something in the agent's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def run(
        self, *command: str, stdin: str = "", status: int = 0, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a client; its exit status must be `status`."""
        done = subprocess.run(
            command,
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"SSH_AUTH_SOCK": str(self.path), "DISPLAY": ""} | env,
        )
        assert done.returncode == status, (
            f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done


@contextmanager
def serve(parts: Parts) -> Iterator[Served]:
    """Serve an agent on a short path."""
    with tempfile.TemporaryDirectory(prefix="hsm") as folder:
        served = Served(parts, Path(folder) / "s")
        served.start()
        try:
            yield served
        finally:
            served.stop()
