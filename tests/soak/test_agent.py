"""The whole daemon, 64 clients, and everything around it dying now and then."""

import asyncio
import os
import random
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import SupportsIndex

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.parts.agent.daemon import ANY_DATA, AgentProcess, unknown_data
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.desktop.joined import joined
from tests.parts.desktop.prompter_fake import FakePrompter
from tests.parts.token.faulty import Action, Faulty
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm

SIGNATURES = int(os.environ.get("SOAK_SIGNATURES", "200000"))
CLIENTS = 64
WORKERS = 2
SECONDS_BETWEEN_EVILS = 2.0
# A client that was answered "no" comes again a little later, as a person would.
PATIENCE = 0.05
MEMORY_MARGIN = 16 << 20
SSH_AGENT_FAILURE, SSH_AGENT_IDENTITIES_ANSWER, SSH_AGENT_SIGN_RESPONSE = 5, 12, 14


def packed(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def fields(data: bytes) -> list[bytes]:
    """Take SSH strings off `data`, all of it."""
    found = []
    while data:
        (length,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


class Client:
    """A connection to the agent; may be torn at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, body: bytes, *, tear: bool = False) -> bytes:
        """Return the answer's body; with `tear`, hang up instead of waiting for it."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._writer.write(packed(body))
        if tear:
            self.close()
            return b"\5"
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        return await self._reader.readexactly(length)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Always(list[str | bytes]):
    """A script for the fake prompter that never ends: the right PIN, counted."""

    def __init__(self, count: Counter[str]) -> None:
        super().__init__()
        self._count = count

    def pop(self, _index: SupportsIndex = -1) -> str | bytes:
        self._count["PINs typed"] += 1
        return PIN.encode()


class Soak:
    """The clients, a person at the prompter and one at the terminal, and an evil one."""

    def __init__(self, agent: AgentProcess, bus: PrivateBus, faulty: Faulty) -> None:
        self.agent = agent
        self.bus = bus
        self.faulty = faulty
        self.count: Counter[str] = Counter()
        self.left = 0
        self.prompter_dies = asyncio.Event()

    async def find_key(self) -> None:
        client = Client(self.agent.ssh_socket)
        answer = await client.ask(b"\x0b")
        client.close()
        assert answer[0] == SSH_AGENT_IDENTITIES_ANSWER
        self.blob = fields(answer[5:])[0]
        point = fields(self.blob)[2]
        self.public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)

    async def client(self) -> None:
        client = Client(self.agent.ssh_socket)
        while self.left > 0:
            self.left -= 1
            data = unknown_data(40)
            request = b"\x0d" + packed(self.blob) + packed(data) + bytes(4)
            async with asyncio.timeout(180):
                answer = await self.signed(client, request)
            self.check(data, answer)
        client.close()

    async def signed(self, client: Client, request: bytes) -> bytes:
        """Ask until it is signed; hang up now and then."""
        while True:
            tear = random.random() < 0.001
            answer = await client.ask(request, tear=tear)
            if answer[0] == SSH_AGENT_SIGN_RESPONSE:
                return answer
            assert answer[0] == SSH_AGENT_FAILURE
            self.count["torn" if tear else "refused"] += 1
            await asyncio.sleep(PATIENCE)

    def check(self, data: bytes, answer: bytes) -> None:
        (signature,) = fields(answer[1:])
        name, numbers = fields(signature)
        assert name == b"ecdsa-sha2-nistp256"
        r, s = (int.from_bytes(number, "big") for number in fields(numbers))
        try:
            der = utils.encode_dss_signature(r, s)
            self.public.verify(der, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            self.count["wrong"] += 1
        else:
            self.count["right"] += 1

    async def prompter(self) -> None:
        """Be a system prompter that dies and comes back."""
        while True:
            self.prompter_dies.clear()
            with suppress(AssertionError, TimeoutError):
                async with joined(self.bus.address) as bus:
                    await FakePrompter(bus, Always(self.count)).serve()
                    await self.prompter_dies.wait()
            await asyncio.sleep(0.2)

    async def person(self) -> None:
        """Be somebody who sees that nothing goes on, and unlocks the token in a terminal."""
        while True:
            before = self.count["right"]
            await asyncio.sleep(3)
            if self.count["right"] == before:
                self.count["PINs typed"] += 1
                await asyncio.to_thread(self.agent.unlock, PIN)

    async def evil(self) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * SECONDS_BETWEEN_EVILS)
            match random.choice(["worker", "worker", "bus", "prompter", "logout"]):
                case "worker":
                    # In C_Sign: killed in C_Login, SoftHSM leaves half a token behind.
                    self.faulty.strike("C_Sign", Action.CRASH)
                    self.count["workers crashed"] += 1
                case "bus":
                    self.count["buses killed"] += 1
                    await asyncio.to_thread(self.bus.stop)
                    self.prompter_dies.set()
                    await asyncio.sleep(random.random())
                    await asyncio.to_thread(self.bus.start)
                case "prompter":
                    self.count["prompters gone"] += 1
                    self.prompter_dies.set()
                case _:
                    self.count["logged out"] += 1
                    await asyncio.to_thread(self.agent.hsmagent, "lock")

    async def run(self, signatures: int, *, evil: bool) -> None:
        self.left = signatures
        around = [self.prompter(), self.person(), *([self.evil()] if evil else [])]
        tasks = [asyncio.create_task(one) for one in around]
        await asyncio.gather(*(self.client() for _ in range(CLIENTS)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the daemon holds ---------------------------------------------------------------

    def memory(self) -> int:
        pages = Path(f"/proc/{self.agent.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def children(self) -> int:
        pid = self.agent.process.pid
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def settled(count: Callable[[], int]) -> int:
    """Return count() once it has stayed the same for two seconds."""
    same, last = 0, -1
    async with asyncio.timeout(60):
        while same < 10:
            await asyncio.sleep(0.2)
            now = count()
            same, last = (same + 1 if now == last else 0), now
    return last


@asynccontextmanager
async def soaking(folder: Path, faulty_module: Path) -> AsyncIterator[Soak]:
    hsm = SoftHsm.create(folder / "hsm")
    hsm.init_token("soak")
    hsm.generate("soak", "EC:prime256v1", "01", "p256")
    faulty = Faulty.create(faulty_module, folder / "faults", MODULE, hsm.env)
    env = ", ".join(f'{name} = "{value}"' for name, value in faulty.env)
    module = f'[[module]]\npath = "{faulty.module}"\nworkers = {WORKERS}\nenv = {{ {env} }}\n'
    config = module + ANY_DATA
    with private_bus() as bus:
        bus.start()
        environment = {"DBUS_SESSION_BUS_ADDRESS": bus.address}
        agent = AgentProcess(folder / "h", config, environment, dumpable=True)
        agent.start()
        try:
            yield Soak(agent, bus, faulty)
        finally:
            agent.stop()


async def test_agent(
    faulty_module: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with soaking(tmp_path, faulty_module) as soak:
        await soak.find_key()
        await soak.run(5000, evil=False)
        descriptors, memory = await settled(soak.agent.descriptors), soak.memory()
        before = time.monotonic()
        await soak.run(SIGNATURES, evil=True)
        seconds = time.monotonic() - before
        soak.faulty.heal()
        assert await settled(soak.children) == WORKERS
        assert await settled(soak.agent.descriptors) == descriptors
        growth = soak.memory() - memory
        with capsys.disabled():
            print(  # noqa: T201 - the figures are what it is run for
                f"\n{dict(soak.count)} in {seconds:.0f} s; memory +{growth >> 10} KiB"
            )
        assert soak.count["right"] == SIGNATURES + 5000
        assert soak.count["wrong"] == 0
        assert growth < MEMORY_MARGIN
        assert soak.faulty.calls("C_Login") <= soak.count["PINs typed"] * WORKERS
        assert "Traceback" not in soak.agent.logged()
