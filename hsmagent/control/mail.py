"""What can be asked on the mail socket, by programs that handle mail."""

from hsmagent.control.conversation import Answer, Asked, Operation
from hsmagent.control.signed_attributes import is_signed_attributes
from hsmagent.control.values import Fields, of_record, to_base64, to_unwrap
from hsmagent.door.gate import Gate
from hsmagent.errors import Refused, UsageError
from hsmagent.limit import Budgets, RateLimit
from hsmagent.model import Clock, Key, Purpose, PurposeKind, Request, Scheme, printable
from hsmagent.ssh.signed_data import ends_as_openpgp
from hsmagent.token.tokens import Tokens
from hsmagent.token.unwrap import unwrap

MAX_CONTENT_KEY = 64
PURPOSES = (PurposeKind.MAIL, PurposeKind.GIT)
# Unwraps in so many seconds: a person reads no more mails, and an attack on the padding needs
# thousands.
UNWRAPS = (120, 60.0)
# A single process may have fewer, so that others can decrypt meanwhile. Mail programs start a
# process for each mail.
UNWRAPS_EACH = (40, 60.0)


class MailOperations:
    """The operations of the mail socket, over the tokens and the gate."""

    def __init__(self, tokens: Tokens, gate: Gate, clock: Clock) -> None:
        self._tokens = tokens
        self._gate = gate
        self._unwraps = RateLimit(*UNWRAPS, clock)
        self._each = Budgets(*UNWRAPS_EACH, clock)

    def table(self) -> dict[str, Operation]:
        """Return the operations by name."""
        return {
            "keys": self.keys,
            "sign_attributes": self.sign_attributes,
            "unwrap": self.unwrap,
        }

    async def keys(self, _: Fields) -> Answer:
        """Return every key with its certificates, and whether GnuPG decrypts with one of them."""
        keys = [signer.key for signer in self._tokens.signers()]
        gnupg = any(key.opens and PurposeKind.GNUPG in self._gate.allowed(key) for key in keys)
        return {"keys": [of_record(key) for key in keys], "gnupg": gnupg}

    async def sign_attributes(self, asked: Asked) -> Answer:
        """Sign a mail's signed attributes: the DER SET OF, which is hashed here; never a digest.

        What could also be read as the data of an OpenPGP signature is refused.
        """
        attributes = asked.binary("attributes")
        if not is_signed_attributes(attributes) or ends_as_openpgp(attributes):
            raise UsageError("what is to be signed is not the signed attributes of a mail")
        scheme = asked.one_of(Scheme, "scheme")
        signer = self._tokens.with_key(asked.binary("key"))[0]
        request = _request(asked, signer.key, "sign")
        signature = await self._gate.perform(
            request, lambda pin: signer.sign(scheme, attributes, pin)
        )
        return {"signature": to_base64(signature)}

    async def unwrap(self, asked: Asked) -> Answer:
        """Unwrap a content key. A failure gives a random key: nobody learns more than that."""
        length = asked.number("length", 1, MAX_CONTENT_KEY)
        what = to_unwrap(asked.fields("recipient"))
        signer = self._tokens.with_key(asked.binary("key"))[0]
        request = _request(asked, signer.key, "decrypt")
        if not self._each.admit(request.peer.process.pid) or not self._unwraps.admit():
            raise Refused("too many decryptions in a short time; wait a minute")
        key = await self._gate.perform(request, lambda pin: unwrap(signer, what, length, pin))
        return {"key": to_base64(key)}


def _request(asked: Asked, key: Key, verb: str) -> Request:
    context = asked.fields("context")
    kind = context.one_of(PurposeKind, "purpose", PurposeKind.MAIL)
    if kind not in PURPOSES:
        raise UsageError(f"the mail socket does not sign for {kind}")
    summary = printable(f"{verb} {context.text('what', 'a mail')}", 200)
    return Request(key, Purpose(kind, summary), asked.peer(), on_wait=asked.on_wait)
