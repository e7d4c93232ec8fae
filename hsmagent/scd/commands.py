"""The commands of GnuPG 2.2 and 2.4 (gnupg/scd/command.c), carried out with our card.

A PIN is never asked for here: the daemon asks.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from hsmagent import assuan
from hsmagent.assuan import Request
from hsmagent.errors import HsmAgentError
from hsmagent.frame import wipe
from hsmagent.model import KeyType
from hsmagent.scd import sexp
from hsmagent.scd.card import SERIAL, Card, CardKey, ref_of
from hsmagent.scd.daemon import Daemon
from hsmagent.scd.digest import to_sign
from hsmagent.scd.errors import Code, Failed

MOST_DATA = 4096  # bytes: an RSA ciphertext has 2048 at most
APP = "hsmagent"
_NOTHING_TO_DO = ("NOP", "LOCK", "UNLOCK", "CHECKPIN", "OPTION")
# Commands that change a card or look inside it; ours is managed by `hsmagent`.
_NOT_HERE = (
    *("GENKEY", "WRITEKEY", "WRITECERT", "SETATTR", "PASSWD", "APDU", "RANDOM", "DEVINFO"),
    *("SWITCHAPP",),
)


Carry = Callable[[Request], Awaitable[bytes]]
"""Carries a command out, and returns the lines before its "OK"."""


class Shared(Protocol):
    """What all conversations share: the card as it was seen last, and facts about this process."""

    card: Card
    socket_path: str

    async def version(self) -> str:
        """Return the version of GnuPG that is installed."""

    def has_learned(self, grip: str) -> bool:
        """Whether GnuPG knows the key of this keygrip as one of our card's."""


class Commands:
    """The commands of one conversation, and its state.

    data: what SETDATA has brought, for a key to be used with. asks: a key is being used, and a
    person may be asked. alone: the client has gone.
    """

    def __init__(self, daemon: Daemon, shared: Shared) -> None:
        self._daemon = daemon
        self._shared = shared
        self.data = bytearray()
        self.asks = False
        self.alone = False
        self._commands: dict[str, Carry] = {
            "SERIALNO": self._serialno,
            "SWITCHCARD": self._serialno,
            "LEARN": self._learn,
            "READCERT": self._readcert,
            "READKEY": self._readkey,
            "KEYINFO": self._keyinfo,
            "GETATTR": self._getattr,
            "GETINFO": self._getinfo,
            "SETDATA": self._setdata,
            "PKSIGN": self._pksign,
            "PKAUTH": self._pkauth,
            "PKDECRYPT": self._pkdecrypt,
        }
        self._commands |= dict.fromkeys(_NOTHING_TO_DO, _nothing)
        self._commands |= dict.fromkeys(_NOT_HERE, _not_here)

    async def carry_out(self, request: Request) -> bytes:
        """Carry a command out; return its status lines and data. Raises HsmAgentError."""
        command = self._commands.get(request.name)
        if command is None:
            raise Failed(Code.ASS_UNKNOWN_CMD, "a command that is not known here")
        return await command(request)

    def forget(self) -> None:
        """Wipe the data."""
        wipe(self.data)
        self.data = bytearray()

    # -- cards -------------------------------------------------------------------------------

    async def look(self) -> None:
        """Look at the card anew. Raises HsmAgentError; then the card stays as it was seen last."""
        self._shared.card = await self._daemon.card(self._shared.card)

    async def _serialno(self, _: Request) -> bytes:
        await self.look()
        if not self._shared.card.keys:
            raise Failed(Code.CARD_NOT_PRESENT, "no key is allowed to GnuPG")
        return assuan.status("SERIALNO", SERIAL)

    async def _learn(self, request: Request) -> bytes:
        lines = await self._serialno(request) + assuan.status("APPTYPE", APP)
        card = self._shared.card
        for certificate in card.certificates.values():
            lines += assuan.status("CERTINFO", certificate.kind, certificate.ref)
        for key in card.present:
            lines += assuan.status("KEYPAIRINFO", key.grip, key.ref, key.usage)
        return lines

    async def _readcert(self, request: Request) -> bytes:
        found = self._shared.card.certificate(request.last)
        if found is None:
            raise Failed(Code.NOT_FOUND, "there is no such certificate")
        return assuan.data(found)

    async def _readkey(self, request: Request) -> bytes:
        key = await self._key(request.last, Code.NOT_FOUND)
        info = {"info", "info-only"} & set(request.options)
        lines = assuan.status("KEYPAIRINFO", key.grip, key.ref, key.usage) if info else b""
        if "info-only" not in request.options:
            lines += assuan.data(sexp.of_public_key(key.key.spki))
        return lines

    async def _keyinfo(self, request: Request) -> bytes:
        if "list" in request.options:
            await self.look()
            letter = {"sign": "s", "encr": "e", "auth": "a"}.get(request.options["list"], "")
            keys = [key for key in self._shared.card.present if letter in key.usage]
            told = [(key.grip, key.usage) for key in keys]
        else:
            told = [await self._key_or_stub(request.last)]
        values = [(grip, "T", SERIAL, ref_of(grip), usage) for grip, usage in told]
        if "data" in request.options:
            return assuan.data("".join(" ".join(each) + "\n" for each in values).encode())
        return b"".join(assuan.status("KEYINFO", *each) for each in values)

    async def _key_or_stub(self, name: str) -> tuple[str, str]:
        """Return keygrip and usage of a key, also of one that is not there but was learned.

        GnuPG 2.4 asks this before it uses a key, and an error has it ask for "the card" by a dialog
        of its own. So what is wrong is said when the key is used.
        """
        try:
            key = await self._key(name, Code.NOT_FOUND)
        except HsmAgentError:
            if not self._shared.has_learned(name):
                raise
            return name.upper(), "-"
        return key.grip, key.usage

    async def _getattr(self, request: Request) -> bytes:
        match request.words:
            case ["$DISPSERIALNO", *_]:
                return assuan.status("$DISPSERIALNO", APP)
            case ["SERIALNO"]:
                return assuan.status("SERIALNO", SERIAL)
            case ["APPTYPE"]:
                return assuan.status("APPTYPE", APP)
            case ["KEY-FPR"]:
                return b""  # gpg asks every card for OpenPGP fingerprints; ours has none
            case ["$AUTHKEYID"]:
                for key in self._shared.card.present:
                    if "a" in key.usage:
                        return assuan.status("$AUTHKEYID", key.ref)
        raise Failed(Code.NOT_SUPPORTED, "this card has no such attribute")

    async def _getinfo(self, request: Request) -> bytes:
        match request.words:
            case ["version"]:
                return assuan.data((await self._shared.version()).encode())
            case ["socket_name"]:
                return assuan.data(self._shared.socket_path.encode())
            case ["status"]:
                return assuan.data(b"u")  # usable
            case ["card_list"]:
                await self.look()
                keys = self._shared.card.keys
                return assuan.status("SERIALNO", SERIAL) if keys else b""
        raise Failed(Code.ASS_PARAMETER, "nothing of this name is known here")

    # -- keys --------------------------------------------------------------------------------

    async def _key(self, name: str, missing: Code) -> CardKey:
        """Return a key by its name. Raises Failed with this code where there is none."""
        key = self._shared.card.key(name)
        if key is None:
            await self.look()
            key = self._shared.card.key(name)
        if key is None:
            raise Failed(missing, "there is no such key")
        return key

    async def _setdata(self, request: Request) -> bytes:
        try:
            data = bytes.fromhex(request.last)
        except ValueError:
            raise Failed(Code.INV_VALUE, "what is to be used is not in hex") from None
        before = bytes(self.data) if "append" in request.options else b""
        if not data or len(before) + len(data) > MOST_DATA:
            raise Failed(Code.INV_VALUE, "nothing, or too much, is to be used")
        self.data = bytearray(before + data)
        return b""

    async def _pksign(self, request: Request) -> bytes:
        key = await self._key(request.last, Code.CARD_NOT_PRESENT)
        return await self._sign(key, request.options.get("hash", ""))

    async def _pkauth(self, request: Request) -> bytes:
        key = await self._key(request.last, Code.CARD_NOT_PRESENT)
        if not key.for_ssh:
            raise Failed(Code.FORBIDDEN, 'the configuration does not allow this key to "ssh"')
        return await self._sign(key, "")

    async def _sign(self, key: CardKey, hash_name: str) -> bytes:
        if not key.key.can_sign:
            raise Failed(Code.NOT_SUPPORTED, "this key does not sign")
        scheme, digest = to_sign(key.key, self._taken(), hash_name)
        return assuan.data(await self._use(key, "sign_digest", scheme=scheme, digest=digest))

    async def _pkdecrypt(self, request: Request) -> bytes:
        key = await self._key(request.last, Code.CARD_NOT_PRESENT)
        data = self._taken()
        if key.key.key_type is KeyType.RSA:
            # To GnuPG it is an integer: it may have a zero in front, or lack some.
            encrypted = data.lstrip(b"\0").rjust((key.key.bits + 7) // 8, b"\0")
            plain = await self._use(key, "decrypt", encrypted=encrypted, padding="pkcs1")
        else:
            plain = await self._use(key, "derive", point=data, kdf_hash="")
        # "PADDING 0" says that the padding is removed already.
        return assuan.status("PADDING", "0") + assuan.data(plain)

    def _taken(self) -> bytes:
        """Return what SETDATA has brought, and wipe it: it is used once."""
        data = bytes(self.data)
        self.forget()
        if not data:
            raise Failed(Code.NO_DATA, "nothing was said that is to be used")
        return data

    async def _use(self, key: CardKey, op: str, **fields: object) -> bytes:
        if self.alone:
            raise Failed(Code.CANCELED, "nobody is left to be answered")
        self.asks = True
        try:
            return await self._daemon.use(key.key, op, **fields)
        finally:
            self.asks = False


async def _nothing(_: Request) -> bytes:
    return b""


async def _not_here(_: Request) -> bytes:
    raise Failed(Code.NOT_SUPPORTED, "our tokens are managed by `hsmagent`")
