"""Another agent behind ours: OpenSSH's own, and some that misbehave."""

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from hsmagent import frame
from hsmagent.control.names import names_key
from hsmagent.daemon.upstream_socket import MOST_HELD, REST_SECONDS, UpstreamAgent
from hsmagent.model import fingerprint
from hsmagent.prompt import words
from hsmagent.ssh import keys, messages, signature, wire
from hsmagent.ssh.agent import Connection
from hsmagent.ssh.identities import Choice
from hsmagent.ssh.messages import Number
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.upstream import Upstream
from tests.parts.agent.authenticator import new_key
from tests.parts.agent.reply import reply_of
from tests.parts.agent.ssh_agent import PEER, Parts, token_signer
from tests.ssh import builders

LIST = b"\x0b"
OURS, THEIRS, HOST = (builders.ed25519_key() for _ in range(3))

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="u") as path:
        yield Path(path)


@pytest.fixture
def openssh(folder: Path) -> Iterator[Path]:
    """Run OpenSSH's ssh-agent with one key in it."""
    with running(folder / "upstream") as path:
        yield path


@contextmanager
def running(path: Path) -> Iterator[Path]:
    """Run OpenSSH's ssh-agent at this socket."""
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()
        try:
            yield path
        finally:
            agent.terminate()


class Scene:
    """Our agent with one token key, in front of the agent at `path`."""

    def __init__(self, path: Path, options: AgentOptions | None = None) -> None:
        self.now = 0.0
        self.parts = Parts([token_signer(OURS, "ours")], options)
        self.upstream = UpstreamAgent(path, lambda: self.now)

    def connect(self) -> Connection:
        return self.parts.agent.connection(lambda: PEER, Upstream(self.upstream.link()))


async def comments(connection: Connection) -> list[str]:
    answer = messages.decode(await reply_of(connection, LIST))
    assert isinstance(answer, messages.IdentitiesAnswer)
    return [comment for _, comment in answer.identities]


async def signs(connection: Connection, blob: bytes, data: bytes = b"data") -> bool:
    reply = messages.decode(await reply_of(connection, builders.sign_request(blob, data)))
    if not isinstance(reply, messages.SignResponse):
        return False
    return signature.verifies(keys.decode(blob), reply.signature, data)


async def give(path: Path, request: bytes) -> None:
    """Say something to the other agent directly."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(frame.encode(request))
    assert await reader.readexactly(5) == b"\0\0\0\1\6"
    writer.close()


async def test_its_comments_are_fit_for_a_terminal(openssh: Path) -> None:
    await give(openssh, builders.add_request(THEIRS, "theirs\x1b]0;\x07" + "x" * 2000))
    connection = Scene(openssh).connect()
    [_, comment] = await comments(connection)
    connection.end()
    assert comment.isprintable()
    assert (comment[:6], len(comment)) == ("theirs", 1000)


async def test_its_keys_come_after_ours_and_pass_our_door(openssh: Path) -> None:
    await give(openssh, builders.add_request(THEIRS, "theirs"))
    scene = Scene(openssh)
    connection = scene.connect()
    work = connection.answer(bytearray(LIST))
    assert not isinstance(work, bytes), "it may wait"
    work.close()
    assert await comments(connection) == ["ours (work)", "theirs"]
    assert await signs(connection, builders.blob_of(THEIRS))
    assert await signs(connection, builders.blob_of(OURS))
    theirs, ours = scene.parts.door.requests
    assert (theirs.key.label, theirs.key.token) == ("theirs", None)
    assert ours.key.token is not None
    scene.parts.door.refuse = lambda request: request.key.token is None
    assert not await signs(connection, builders.blob_of(THEIRS))
    connection.end()


async def test_signing_needs_no_list_before(openssh: Path) -> None:
    await give(openssh, builders.add_request(THEIRS, "theirs"))
    connection = Scene(openssh).connect()
    assert await signs(connection, builders.blob_of(THEIRS))
    assert not await signs(connection, builders.blob_of(HOST))
    connection.end()


async def test_a_key_that_both_have_is_ours_once(openssh: Path) -> None:
    await give(openssh, builders.add_request(OURS, "theirs"))
    connection = Scene(openssh).connect()
    assert await comments(connection) == ["ours (work)"]
    connection.end()


async def test_choices_hide_and_rename_its_keys(openssh: Path) -> None:
    await give(openssh, builders.add_request(THEIRS, "theirs"))
    await give(openssh, builders.add_request(HOST, "host"))
    choices = (
        Choice(lambda key: key.label == "theirs", name="other"),
        Choice(lambda key: key.label == "host", hide=True),
    )
    connection = Scene(openssh, AgentOptions(choices=choices)).connect()
    assert await comments(connection) == ["ours (work)", "other"]
    connection.end()


async def test_bindings_hold_on_its_connection_too(openssh: Path) -> None:
    target = builders.hop("h", [(builders.blob_of(HOST), False)])
    under = builders.restrict(builders.way(builders.hop(), target))
    await give(openssh, builders.add_request(THEIRS, "theirs", under))
    scene = Scene(openssh)
    right, wrong, other = (scene.connect() for _ in range(3))
    blob = builders.blob_of(THEIRS)
    data = builders.userauth(b"2", blob)
    for connection, host in ((right, HOST), (wrong, OURS)):
        bind = builders.bind_request(builders.binding(host, b"2"))
        assert await reply_of(connection, bind) == b"\x06"
    assert await comments(right) == ["ours (work)", "theirs"]
    assert await comments(wrong) == ["ours (work)"]
    assert await signs(right, blob, data)
    assert not await signs(wrong, blob, data)
    assert not await signs(other, blob, data), "each connection has its own bindings"
    for connection in (right, wrong, other):
        connection.end()


async def test_one_that_is_started_anew_is_seen_by_those_who_stayed(folder: Path) -> None:
    """And a new connection to it is bound to the hosts that the client's own is bound to."""
    path, blob = folder / "upstream", builders.blob_of(THEIRS)
    target = builders.hop("h", [(builders.blob_of(HOST), False)])
    under = builders.restrict(builders.way(builders.hop(), target))
    scene = Scene(path)
    right, wrong = scene.connect(), scene.connect()
    for connection, host in ((right, HOST), (wrong, OURS)):
        bind = builders.bind_request(builders.binding(host, b"2"))
        with running(path):
            assert await reply_of(connection, bind) == b"\x06"
            assert await comments(connection) == ["ours (work)"]
        path.unlink(missing_ok=True)
    with running(path):
        await give(path, builders.add_request(THEIRS, "theirs", under))
        assert await comments(right) == ["ours (work)", "theirs"]
        assert await signs(right, blob, builders.userauth(b"2", blob))
        assert await comments(wrong) == ["ours (work)"]
        assert not await signs(wrong, blob, builders.userauth(b"2", blob))
    path.unlink(missing_ok=True)
    # It is gone for now: after a while, somebody looks again.
    assert await comments(right) == ["ours (work)"]
    with running(path):
        await give(path, builders.add_request(THEIRS, "theirs", under))
        assert await comments(right) == ["ours (work)"]
        scene.now += REST_SECONDS
        assert await comments(right) == ["ours (work)", "theirs"]
    for connection in (right, wrong):
        connection.end()


async def test_a_client_that_binds_for_ever_is_left_without(openssh: Path) -> None:
    scene = Scene(openssh)
    await give(openssh, builders.add_request(THEIRS, "theirs"))
    connection = scene.connect()
    for number in range(MOST_HELD + 1):
        bind = builders.bind_request(builders.binding(HOST, bytes((number,))))
        await reply_of(connection, bind)
    assert await comments(connection) == ["ours (work)"]
    connection.end()


async def test_locked_nothing_of_it_shows(openssh: Path) -> None:
    await give(openssh, builders.add_request(THEIRS, "theirs"))
    connection = Scene(openssh).connect()
    lock = bytes((Number.SSH_AGENTC_LOCK,)) + wire.string(b"x")
    assert await reply_of(connection, lock) == b"\x06"
    assert await comments(connection) == []
    assert not await signs(connection, builders.blob_of(THEIRS))


# -- agents that misbehave -------------------------------------------------------------------


@asynccontextmanager
async def agent_that(path: Path, answer: Answer) -> AsyncIterator[None]:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
            await done.wait()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        done.set()
        server.close()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(5)
    writer.close()


async def talks_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(5)
    writer.write(frame.encode(b"\xffnonsense"))


async def sends_too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(5)
    writer.write(b"\xff\xff\xff\xff")


@pytest.mark.parametrize("answer", [hangs, hangs_up, talks_nonsense, sends_too_much])
async def test_a_sick_upstream_costs_its_keys_only(folder: Path, answer: Answer) -> None:
    async with agent_that(folder / "s", answer):
        scene = Scene(folder / "s")
        connection = scene.connect()
        assert await comments(connection) == ["ours (work)"]
        assert await signs(connection, builders.blob_of(OURS))
        assert not await signs(connection, builders.blob_of(THEIRS))
        connection.end()


async def test_an_upstream_that_is_not_there(folder: Path) -> None:
    connection = Scene(folder / "nobody").connect()
    assert await comments(connection) == ["ours (work)"]
    connection.end()


async def test_nobody_waits_again_for_one_that_hung(folder: Path) -> None:
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()

    async with agent_that(folder / "s", hang):
        scene = Scene(folder / "s")
        for _ in range(5):
            connection = scene.connect()
            assert await comments(connection) == ["ours (work)"]
            connection.end()
        assert asked == 1
        scene.now += REST_SECONDS
        connection = scene.connect()
        await comments(connection)
        connection.end()
        assert asked == 2


async def test_a_signature_that_is_not_its_keys_is_not_passed_on(folder: Path) -> None:
    identities = messages.IdentitiesAnswer(((builders.blob_of(THEIRS), "theirs"),))

    async def forge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(frame.encode(messages.encode(identities)))
        await reader.read(1000)
        forged = signature.encode("ssh-ed25519", bytes(64))
        writer.write(frame.encode(messages.encode(messages.SignResponse(forged))))

    async with agent_that(folder / "s", forge):
        connection = Scene(folder / "s").connect()
        request = builders.sign_request(builders.blob_of(THEIRS), b"data")
        assert await reply_of(connection, request) == messages.FAILURE
        connection.end()


FIDO = new_key()
UNREADABLE = wire.text("ssh-falcon@example.org") + wire.string(bytes(32))


@pytest.mark.parametrize(
    ("blob", "signed", "kind"),
    [
        (UNREADABLE, wire.text("ssh-falcon@example.org") + bytes(9), "unknown kind"),
        (FIDO.blob, FIDO.sign(b"data", 1), "Ed25519-SK"),
    ],
    ids=["unreadable", "fido"],
)
async def test_a_key_is_shown_as_what_it_is(
    folder: Path, blob: bytes, signed: bytes, kind: str
) -> None:
    identities = messages.IdentitiesAnswer(((blob, "theirs"),))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(frame.encode(messages.encode(identities)))
        await reader.read(1000)
        writer.write(frame.encode(messages.encode(messages.SignResponse(signed))))

    async with agent_that(folder / "s", answer):
        scene = Scene(folder / "s")
        connection = scene.connect()
        assert await comments(connection) == ["ours (work)", "theirs"]
        reply = await reply_of(connection, builders.sign_request(blob, b"data"))
        assert messages.decode(reply) == messages.SignResponse(signed)
        [request] = scene.parts.door.requests
        assert words.key_line(request.key) == f"theirs ({kind})"
        assert names_key(fingerprint(blob), request.key), "a [[key]] entry can name it"
        connection.end()


async def test_the_agent_that_crashes_on_extensions_gets_none(folder: Path) -> None:
    (folder / "gcr").mkdir()
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            heard.append(data)
            writer.write(frame.encode(b"\x0c\0\0\0\0"))

    async with agent_that(folder / "gcr" / "ssh", listen):
        connection = Scene(folder / "gcr" / "ssh").connect()
        bind = builders.bind_request(builders.binding(HOST, b"2"))
        assert await reply_of(connection, bind) == b"\x06"
        await comments(connection)
        connection.end()
    assert heard == [frame.encode(LIST)]


def test_an_upstream_knows_our_own_socket(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "s")
    (folder / "s").touch()
    upstream = UpstreamAgent(folder / "link", lambda: 0.0)
    assert upstream.is_at(str(folder / "s"))
    assert not upstream.is_at(str(folder / "other"))
