"""What clients add to the agent and take away, under constraints: keys, providers."""

from collections.abc import Callable, Sequence

from hsmagent.errors import ProtocolError, Refused
from hsmagent.model import Clock, Signer
from hsmagent.ssh import certificates, constraints, fido, keys, software
from hsmagent.ssh import provider_paths as providers
from hsmagent.ssh.bindings import Bindings
from hsmagent.ssh.certificates import Certificate
from hsmagent.ssh.constraints import Constraints
from hsmagent.ssh.fido import FidoSigner
from hsmagent.ssh.identities import NEVER, Identities, Identity, offers
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.provider_paths import Providers
from hsmagent.ssh.signer import RawSigner, SshSigner
from hsmagent.ssh.sk_helper import Helper
from hsmagent.ssh.software import Aside
from hsmagent.ssh.wire import Reader

HIDDEN = "a key that is not permitted here cannot be replaced from here"


class Keyring:
    """Adds to the table of identities and takes away from it.

    sk_helper: runs ssh-sk-helper, by which FIDO keys sign. options: returns the agent's, as of now.
    aside: runs signatures that take long.
    """

    def __init__(
        self,
        identities: Identities,
        providers: Providers,
        sk_helper: Helper,
        clock: Clock,
        options: Callable[[], AgentOptions],
        *,
        aside: Aside,
    ) -> None:
        self._identities = identities
        self._providers = providers
        self._sk_helper = sk_helper
        self._clock = clock
        self._options = options
        self._aside = aside

    def add_key(self, body: bytearray, *, constrained: bool, bindings: Bindings) -> None:
        """Take a software or FIDO key (messages 17 and 25). Raises ProtocolError or Refused."""
        reader = Reader(body)
        is_fido = fido.is_fido(keys.type_name(body))
        added = fido.read(reader) if is_fido else software.read(reader, self._aside)
        under = constraints.read(reader, smartcard=False) if constrained else constraints.NONE
        reader.end()
        if self._hides(added.blob, bindings):
            raise Refused(HIDDEN)
        signer, until = self._signer(added, under, bindings), self._expiry(under)
        identity = Identity(added.blob, added.comment, signer, under, until, size=len(body))
        self._identities.check_size([identity])
        self._identities.add([identity])

    def _signer(
        self, added: software.Added | fido.Added, under: Constraints, bindings: Bindings
    ) -> SshSigner:
        named = under.sk_provider
        if isinstance(added, software.Added):
            if named:
                raise ProtocolError("a FIDO provider came with a key of another kind")
            return RawSigner(added.signer)
        options = self._options()
        forbidden = bindings.attempted and not options.allow_remote_pkcs11
        if forbidden and not providers.is_internal(named):
            raise Refused("a FIDO provider cannot be added over a forwarded agent")
        provider = providers.canonical_sk(named, options.providers)
        return FidoSigner(added.private, added.comment, provider, self._sk_helper)

    def remove_key(self, blob: bytes, bindings: Bindings) -> None:
        """Forget an added key (message 18). Raises Refused."""
        if self._identities.find(blob) is None or self._hides(blob, bindings):
            raise Refused("the key to remove is not there")
        self._identities.remove(blob, keep_rules=bindings.attempted)

    async def add_provider(
        self, provider: str, pin: bytearray, under: Constraints, bindings: Bindings
    ) -> None:
        """Offer a provider's keys (messages 20 and 26). Raises HsmAgentError."""
        name = providers.canonical(provider, self._options().providers)
        self._identities.check_room(name)
        signers = await self._providers.add(name, pin)
        expires = self._expiry(under)
        added = [
            identity
            for signer in signers
            for identity in offers(signer, _certificates(signer, under), under, expires, name)
        ]
        try:
            self._check(added, bindings)
        except Refused:
            if name not in self._identities.providers:
                await self._providers.remove(name)
            raise
        self._identities.add_provider(name, added)

    def _check(self, added: Sequence[Identity], bindings: Bindings) -> None:
        """Raise Refused unless a provider's keys may be offered."""
        if not added:
            raise Refused("the provider has no key that ssh can use")
        if bindings.attempted and any(
            self._hides(each.blob, bindings) or self._identities.is_ruled(each.signer.key)
            for each in added
        ):
            raise Refused(HIDDEN)
        self._identities.check_size(added)

    async def remove_provider(self, provider: str, bindings: Bindings) -> None:
        """Offer a provider's keys no longer (message 21). Raises Refused when there were none.

        Over a forwarded agent the constraints of its keys stay in force, since a configured module
        may offer the same keys.
        """
        name = providers.canonical(provider, self._options().providers)
        known = self._identities.remove_provider(name, keep_rules=bindings.attempted)
        if not await self._providers.remove(name) and not known:
            raise Refused("that provider was not added")

    async def remove_everything(self, bindings: Bindings) -> None:
        """Forget all that was added (message 19): software keys, and providers with their keys.

        Over a forwarded agent constraints stay in force, as for `remove_provider`.
        """
        self._identities.remove_software()
        for provider in self._identities.providers:
            self._identities.remove_provider(provider, keep_rules=bindings.attempted)
            await self._providers.remove(provider)

    def _hides(self, blob: bytes, bindings: Bindings) -> bool:
        """Whether there is such a key, and this connection's bindings do not let it be seen."""
        identity = self._identities.find(blob)
        return identity is not None and not bindings.may_see(identity.constraints.ways)

    def _expiry(self, under: Constraints) -> float:
        lifetime = under.lifetime or self._options().lifetime
        return self._clock() + lifetime if lifetime else NEVER


def _certificates(signer: Signer, under: Constraints) -> list[Certificate]:
    """Return the certificates among the constraints that are for this key."""
    plain = keys.blob_of(signer.key.spki)
    return [] if plain is None else certificates.of_key(plain, under.certificates)
