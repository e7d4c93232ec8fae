"""The agent: a request and who asks it → a reply. No socket and no event loop in here.

`Agent` is what all connections to one socket share; `Connection` adds what one connection was
bound to. What needs no waiting (lists, binds, queries, added keys) is answered at once; signatures
and providers by work that may wait.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from hsmagent.errors import HsmAgentError, PinIncorrect, ProtocolError, Refused
from hsmagent.frame import wipe
from hsmagent.limit import PeerLog
from hsmagent.model import (
    Clock,
    Door,
    Key,
    Peer,
    Request,
    Signer,
    printable,
)
from hsmagent.ssh import constraints, fido, messages, signed_data, wire
from hsmagent.ssh.bindings import Bindings
from hsmagent.ssh.certificates import plain
from hsmagent.ssh.constraints import Constraints
from hsmagent.ssh.identities import Identities, Identity, list_of
from hsmagent.ssh.keyring import Keyring
from hsmagent.ssh.late import LatePeer, Places
from hsmagent.ssh.lock import Lock, Sleep
from hsmagent.ssh.messages import EXTENSION_FAILURE, FAILURE, SUCCESS, Number
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.provider_paths import Providers, wish_to_load
from hsmagent.ssh.signed_data import UserAuth
from hsmagent.ssh.signing_rules import Circumstances, judge
from hsmagent.ssh.sk_helper import Helper
from hsmagent.ssh.software import Aside
from hsmagent.ssh.upstream import Upstream
from hsmagent.ssh.wire import Reader

log = logging.getLogger(__name__)

Frame = bytes | bytearray

LIST = bytes((Number.SSH_AGENTC_REQUEST_IDENTITIES,))
NOBODY = messages.encode(messages.IdentitiesAnswer(()))
EXTENSIONS = messages.encode(
    messages.ExtensionResponse(
        messages.QUERY, wire.text(messages.QUERY) + wire.text(messages.SESSION_BIND)
    )
)
# Replies to these wait for a person, a token or a provider.
WAITING = (
    Number.SSH_AGENTC_SIGN_REQUEST,
    Number.SSH_AGENTC_REMOVE_ALL_IDENTITIES,
    Number.SSH_AGENTC_ADD_SMARTCARD_KEY,
    Number.SSH_AGENTC_ADD_SMARTCARD_KEY_CONSTRAINED,
    Number.SSH_AGENTC_REMOVE_SMARTCARD_KEY,
    Number.SSH_AGENTC_UNLOCK,
)


class Agent:
    """One per ssh socket; shared by its connections.

    door: every signature passes it. tokens: returns their signers, as of now. sk_helper: runs
    ssh-sk-helper, by which FIDO keys sign. aside: runs signatures that take long. soon: calls back
    in the next turn of the loop. describe: returns a host key's name for a person; only called when
    something is signed. knows_host: whether known_hosts has a host key, or the authority of its
    certificate (else b"").
    """

    def __init__(
        self,
        *,
        door: Door,
        tokens: Callable[[], Sequence[Signer]],
        providers: Providers,
        sk_helper: Helper,
        clock: Clock,
        sleep: Sleep,
        aside: Aside,
        soon: Callable[[Callable[[], None]], object],
        describe: Callable[[bytes, Peer], str],
        knows_host: Callable[[bytes, bytes], bool],
        options: AgentOptions,
    ) -> None:
        self.door = door
        self.soon = soon
        self.describe = describe
        self.knows_host = knows_host
        self.lock = Lock(clock, sleep)
        self.log = PeerLog(log, clock)
        self.identities = Identities(tokens, clock)
        self.keyring = Keyring(
            self.identities, providers, sk_helper, clock, lambda: self.options, aside=aside
        )
        self._answer = NOBODY
        self._answer_version = -1
        self.configure(options)

    def configure(self, options: AgentOptions) -> None:
        """Take other options; keys that were added stay as they are."""
        self.options = options
        self.identities.configure(options.choices, options.certificates)

    def connection(
        self, peer: Callable[[], Peer], upstream: Upstream | None = None
    ) -> "Connection":
        """Begin a connection; `peer` is looked up when a private key is first asked for."""
        return Connection(self, peer, upstream)

    def changed(self) -> None:
        """Look at the tokens again: their signers may be others now."""
        self.identities.changed()

    def remove_all(self) -> None:
        """Forget every software key."""
        self.identities.remove_software()

    # -- what connections ask ----------------------------------------------------------------

    def list_all(self) -> bytes:
        """Return the reply that lists every identity; it is worked out once after each change."""
        version = self.identities.version
        if version != self._answer_version:
            self._answer = list_of(self.identities.listed())
            self._answer_version = version
        return self._answer


class Connection:
    """One client's connection. Implements `connection.Conversation`."""

    def __init__(self, agent: Agent, peer: Callable[[], Peer], upstream: Upstream | None) -> None:
        self._agent = agent
        self._upstream = upstream
        self._who = LatePeer(peer)
        self._bindings = Bindings()
        self._places = Places(self._bindings, lambda blob: agent.describe(blob, self._who))

    def answer(self, frame: Frame) -> bytes | Coroutine[Any, Any, bytes]:
        """Return the reply's body, or the work that gives it and may wait.

        It is FAILURE, with a line in the log, for whatever is refused. A frame that held a secret
        is wiped once it is answered, and so is what was read of it.
        """
        if frame == LIST and self._upstream is None:
            return list_of(self._visible()) if self._must_filter else self._agent.list_all()
        if frame and self._must_wait(frame[0]):
            return self._answer_in_time(frame)
        message = None
        try:
            message = messages.decode(frame)
            return self._at_once(message)
        except HsmAgentError as error:
            return self._refuse(error)
        finally:
            _wipe(frame, message)

    async def _answer_in_time(self, frame: Frame) -> bytes:
        message = None
        try:
            message = messages.decode(frame)
            if isinstance(message, messages.SignRequest):
                return await self._sign(message)
            return await self._in_time(message)
        except HsmAgentError as error:
            return self._refuse(error)
        finally:
            if not isinstance(message, messages.SignRequest):  # which holds no secret
                _wipe(frame, message)

    def end(self) -> None:
        """Release what the connection held; its client is gone."""
        if self._upstream is not None:
            self._upstream.close()

    def _refuse(self, error: HsmAgentError) -> bytes:
        self._agent.log.warning(self._who.process.pid, "answered with a failure: %s", error)
        return FAILURE

    # -- at once -----------------------------------------------------------------------------

    def _must_wait(self, number: int) -> bool:
        if self._upstream is not None and number == Number.SSH_AGENTC_EXTENSION:
            return True
        if self._agent.lock.locked:
            return number == Number.SSH_AGENTC_UNLOCK
        return number in WAITING or (
            self._upstream is not None and number == Number.SSH_AGENTC_REQUEST_IDENTITIES
        )

    @property
    def _must_filter(self) -> bool:
        """Whether this connection may see less than what all others see."""
        agent = self._agent
        return agent.lock.locked or (self._bindings.attempted and agent.identities.restricted)

    def _visible(self) -> list[Identity]:
        if self._agent.lock.locked:
            return []
        may_see = self._bindings.may_see
        listed = self._agent.identities.listed()
        return [identity for identity in listed if may_see(identity.constraints.ways)]

    def _at_once(self, message: messages.Request | messages.Reply) -> bytes:
        agent = self._agent
        match message:
            case messages.Extension():
                return self._extend(message)
            case messages.Lock():
                agent.lock.lock(message.passphrase)
                return SUCCESS
            case messages.RequestIdentities():
                return list_of(self._visible())
        if agent.lock.locked:
            raise Refused("the agent is locked (ssh-add -X unlocks it)")
        keyring = agent.keyring
        match message:
            case messages.AddIdentity():
                keyring.add_key(message.body, constrained=False, bindings=self._bindings)
            case messages.AddIdConstrained():
                keyring.add_key(message.body, constrained=True, bindings=self._bindings)
            case messages.RemoveIdentity():
                keyring.remove_key(message.key_blob, self._bindings)
            case messages.RemoveAllRsaIdentities():
                pass
            case _:
                raise ProtocolError("a client sent what only an agent says")
        return SUCCESS

    def _extend(self, message: messages.Extension) -> bytes:
        match message.name:
            case messages.QUERY if not self._agent.lock.locked:
                return EXTENSIONS
            case messages.SESSION_BIND:
                try:
                    self._bindings.bind(message.contents)
                except ProtocolError as error:
                    said = "refused a session binding: %s"
                    self._agent.log.warning(self._who.process.pid, said, error)
                    return EXTENSION_FAILURE
                return SUCCESS
        return FAILURE  # RFC 9987, section 5.8: not supported

    # -- in time -----------------------------------------------------------------------------

    async def _in_time(self, message: messages.Request | messages.Reply) -> bytes:
        keyring = self._agent.keyring
        match message:
            case messages.RequestIdentities():
                return await self._list_with_upstream()
            case messages.Extension():
                return await self._extend_both(message)
            case messages.RemoveAllIdentities():
                await keyring.remove_everything(self._bindings)
            case messages.AddSmartcardKey():
                await self._add_provider(message, constraints.NONE)
            case messages.AddSmartcardKeyConstrained():
                under = constraints.read(Reader(message.constraints), smartcard=True)
                await self._add_provider(message, under)
            case messages.Unlock():
                await self._agent.lock.unlock(message.passphrase, self._who.process.pid)
            case messages.RemoveSmartcardKey():
                await keyring.remove_provider(message.provider, self._bindings)
        return SUCCESS

    async def _add_provider(
        self,
        message: messages.AddSmartcardKey | messages.AddSmartcardKeyConstrained,
        under: Constraints,
    ) -> None:
        try:
            await self._load(message, under)
        except (Refused, PinIncorrect) as error:
            self._agent.door.refused(wish_to_load(message.provider, self._who), str(error))
            raise

    async def _load(
        self,
        message: messages.AddSmartcardKey | messages.AddSmartcardKeyConstrained,
        under: Constraints,
    ) -> None:
        if self._bindings.attempted and not self._agent.options.allow_remote_pkcs11:
            raise Refused("a PKCS#11 provider cannot be added over a forwarded agent")
        if message.pin:
            named = printable(message.provider.partition("?")[0])
            said = "%s gives a PIN for the provider %s"
            self._agent.log.warning(self._who.process.pid, said, self._who.chain, named)
        await self._agent.keyring.add_provider(message.provider, message.pin, under, self._bindings)

    async def _list_with_upstream(self) -> bytes:
        ours = self._visible()
        if self._upstream is None:
            return list_of(ours)
        theirs = await self._upstream.identities({identity.blob for identity in ours})
        chosen = [self._agent.identities.chosen(identity)[1] for identity in theirs]
        return list_of([*ours, *(identity for identity in chosen if not identity.hidden)])

    async def _extend_both(self, message: messages.Extension) -> bytes:
        reply = self._extend(message)
        if self._upstream is not None and message.name == messages.SESSION_BIND:
            await self._upstream.bind(message.contents)
        return reply

    async def _sign(self, message: messages.SignRequest) -> bytes:
        agent, data = self._agent, message.data
        ours = agent.identities.find(message.key_blob)
        identity = ours or await self._find_upstream(message.key_blob)
        if identity is None:
            raise Refused("the key to sign with is not here")
        login = signed_data.read_userauth(data)
        if identity.constraints.ways:
            self._bindings.check_use(identity.constraints.ways, login, identity.blob)
        key = identity.signer.key
        if key.token is None:
            fido.check_origin(key, identity.blob, data, login, agent.options.websafe)
        request = self._request(key, identity, message, login)
        blob = await agent.door.perform(request, partial(self._begin, identity, message))
        if agent.lock.locked or (ours is not None and agent.identities.find(ours.blob) is None):
            raise Refused("the key was locked or removed meanwhile")
        return messages.sign_response(blob)

    def _begin(
        self, identity: Identity, message: messages.SignRequest, pin: bytearray | None
    ) -> Awaitable[bytes]:
        """Sign, and find out for the log who asked while a token is at work."""
        for late in (self._who, self._places.last):
            if late is not None and late.unread:
                self._agent.soon(late.read)
        return identity.signer.sign(message.data, message.flags, pin)

    async def _find_upstream(self, blob: bytes) -> Identity | None:
        return None if self._upstream is None else await self._upstream.find(blob)

    def _request(
        self, key: Key, identity: Identity, message: messages.SignRequest, login: UserAuth | None
    ) -> Request:
        """Say what the door is to decide on. Raises Refused for what the key never signs here."""
        bound = self._bindings.last
        here = Circumstances(
            key,
            plain(identity.blob),
            message.flags,
            bound,
            lambda blob: self._agent.identities.has(key, blob),
            self._agent.knows_host,
        )
        return Request(
            key,
            judge(message.data, login, here),
            self._who,
            self._places.of(login, bound),
            identity.constraints.confirm,
        )


def _wipe(frame: Frame, message: messages.Request | messages.Reply | None) -> None:
    if isinstance(frame, bytearray):
        wipe(frame)
    if message is not None:
        messages.wipe(message)
