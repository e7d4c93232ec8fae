"""A token's key as the rest of the daemon uses it: sign, decrypt, derive, each result checked."""

from functools import lru_cache

from hsmagent.errors import TokenError
from hsmagent.model import Key, KeyType, Scheme, name_of, quoted
from hsmagent.token import schemes
from hsmagent.token.check import Checker
from hsmagent.token.token import Token
from hsmagent.worker import spec
from hsmagent.worker.messages import Action, KeyUse

_key_use = lru_cache(maxsize=256)(KeyUse)


def _use(key: Key, action: Action, mechanism: int, parameter: bytes = b"") -> KeyUse:
    key_type = schemes.KEY_TYPES[key.key_type]
    return _key_use(action, key_type, mechanism, key.id, key.label.encode(), parameter)


class TokenSigner:
    """One key of a token: a model.Signer that also decrypts.

    What `decrypt_raw` returns never leaves the daemon; what `derive` returns goes to GnuPG only.
    `pin`, in every operation, is for a key with always_authenticate, and wiped. All raise
    LoginNeeded, PinError, TokenGone, WorkerDied or another TokenError.
    """

    def __init__(self, token: Token, key: Key, *, extends: bool = True) -> None:
        self.token = token
        self._key = key
        self._extends = extends
        self._checker: Checker | None = None
        self._unnoticed: TokenSigner | None = None

    @property
    def key(self) -> Key:
        """The key, with all that the token has told of it by now (always_authenticate, …)."""
        return self.token.keys.get(self._key.spki, self._key)

    @property
    def unnoticed(self) -> "TokenSigner":
        """The same key, whose use does not make the token's login last longer."""
        if self._unnoticed is None:
            self._unnoticed = TokenSigner(self.token, self._key, extends=False)
        return self._unnoticed

    async def sign(
        self, scheme: Scheme, data: bytes, pin: bytearray | None = None, *, hashed: bool = False
    ) -> bytes:
        """Sign `data`, per `scheme`, and check the result. See model.Signer.

        hashed: `data` is a digest that somebody else made, of the length that the scheme's has.
        """
        key = self.key
        prepared = schemes.prepare(key, scheme, data, hashed=hashed)
        signature = await self.token.operate(
            key,
            _use(key, Action.SIGN, prepared.mechanism, prepared.parameter),
            prepared.data,
            pin,
            extends=self._extends,
        )
        if not (self._checker or self._check()).holds(scheme, prepared.digest, signature):
            raise self._misfit("a signature")
        return signature

    async def decrypt_raw(self, ciphertext: bytes, pin: bytearray | None = None) -> bytes:
        """RSA without unpadding (RSADP): the whole block, as long as the modulus.

        Checked by encrypting it again.
        """
        size = (self._key.bits + 7) // 8
        if self._key.key_type is not KeyType.RSA or len(ciphertext) != size:
            raise TokenError("that was not encrypted for this key")
        plain = await self._operate(Action.DECRYPT, spec.CKM_RSA_X_509, ciphertext, pin)
        block = plain.rjust(size, b"\0")  # some tokens drop the zeros in front
        if not self._check().encrypts(block, ciphertext):
            raise self._misfit("a decryption")
        return block

    async def derive(self, point: bytes, *, cofactor: bool, pin: bytearray | None = None) -> bytes:
        """ECDH with `point` (04‖x‖y): the shared x coordinate, as long as the field.

        All our curves have the cofactor 1, so that both kinds of ECDH give the same, and tokens
        that know only the plain one serve for both.
        """
        del cofactor
        size = (self._key.bits + 7) // 8
        if self._key.key_type is not KeyType.EC or len(point) != 1 + 2 * size:
            raise TokenError("that was not encrypted for this key")
        secret = await self._operate(Action.DERIVE, spec.CKM_ECDH1_DERIVE, point, pin)
        if len(secret) > size:
            raise self._misfit("a shared secret")
        return secret.rjust(size, b"\0")

    async def _operate(
        self, action: Action, mechanism: int, data: bytes, pin: bytearray | None
    ) -> bytes:
        key = self.key
        use = _use(key, action, mechanism)
        return await self.token.operate(key, use, data, pin, extends=self._extends)

    def _check(self) -> Checker:
        if self._checker is None:
            self._checker = Checker(self._key)
        return self._checker

    def _misfit(self, what: str) -> TokenError:
        return TokenError(
            f"{name_of(self.token.id)} made {what} that does not fit the key"
            f" {quoted(self._key.label)}: are there two keys with one id?"
        )
