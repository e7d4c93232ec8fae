"""A token's objects as keys. Pure: raw attributes in, `Key`s and notes out.

Public keys come from public key objects and certificates and are paired by CKA_ID with each other
and, once we are logged in, with the private keys. Without a login the private keys are unseen, and
every public key is taken to have one. An odd object is skipped with a note and hides no other.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsmagent.model import Key, KeyType, TokenId, quoted
from hsmagent.token import public_keys
from hsmagent.token.issuers import authorities_of, with_authorities, without_issuers
from hsmagent.token.public_keys import CURVE_NAMES, MAX_RSA_BITS, MIN_RSA_BITS, Odd, Public
from hsmagent.token.schemes import KEY_TYPES
from hsmagent.worker import spec
from hsmagent.worker.messages import RawObject

MAX_KEYS = 256
SLICE = 32  # objects between two pauses: a few milliseconds' worth
_KINDS = {number: key_type for key_type, number in KEY_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Listing:
    """The keys of a token.

    keys: sorted by CKA_ID, so that their order does not depend on the token's. orphans: public keys
    (SPKI) without a private half; empty unless the private keys could be seen.
    """

    keys: tuple[Key, ...] = ()
    orphans: frozenset[bytes] = frozenset()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Private:
    """A private key object."""

    key_type: KeyType
    id: bytes
    label: str
    modulus: int  # 0 where the token does not tell
    usable: Mapping[int, bool]

    @property
    def half(self) -> "_Half":
        """What this and a public key have in common if they may belong together."""
        return self.key_type, self.id, self.modulus


_Half = tuple[KeyType, bytes, int]


def _halves(key: Key) -> tuple[_Half, ...]:
    """Return what the private half of `key` may say of itself: with its modulus, and without."""
    return tuple(
        (key.key_type, key.id, modulus)
        for modulus in dict.fromkeys((public_keys.modulus(key.spki), 0))
    )


def keys_of(token: TokenId, objects: Iterable[RawObject], *, complete: bool) -> Listing:
    """Return the keys among a token's objects.

    complete: the private keys are listed too, so that what has none is left out.
    """
    *_, listing = keys_in_slices(token, objects, complete=complete)
    return listing


def keys_in_slices(
    token: TokenId, objects: Iterable[RawObject], *, complete: bool
) -> Iterator[Listing]:
    """Yield an empty Listing now and then, so that other work can go on, and the whole one last."""
    said: dict[tuple[bytes, str], str] = {}
    found: list[Key] = []
    certificates: list[Key] = []
    privates: list[_Private] = []
    for number, raw in enumerate(objects):
        if number % SLICE == SLICE - 1:
            yield Listing()
        values = dict(raw.attributes)
        kind = _ulong(values.get(spec.CKA_CLASS, b""))
        try:
            if kind == spec.CKO_PUBLIC_KEY:
                found.append(_key(token, public_keys.of(values), values))
            elif kind == spec.CKO_CERTIFICATE:
                certificates.append(_from_certificate(token, values))
            elif kind == spec.CKO_PRIVATE_KEY:
                privates.append(_private(values))
                _add_from_private(token, values, found)
        except Odd as odd:
            # A key, its certificate and its private half are odd for one reason: it is said once.
            said.setdefault((values.get(spec.CKA_ID, b""), str(odd)), f"{_name(values)}: {odd}")
    notes = list(said.values())
    merged = _merge(found, certificates)
    notes += _same_id(merged, privates)
    authorities = authorities_of(certificates)
    if not complete:
        kept = _first(_once(without_issuers(merged)), notes)
        yield Listing(with_authorities(authorities, kept), notes=tuple(notes))
        return
    keys = list(_paired(merged, privates))
    skipped = {number for number, _ in said if number}
    notes += _unpaired(keys, [private for private in privates if private.id not in skipped])
    orphans = {key.spki for key in merged} - {key.spki for key in keys}
    kept = _first(_once(keys), notes)
    yield Listing(with_authorities(authorities, kept), frozenset(orphans), tuple(notes))


def _first(keys: tuple[Key, ...], notes: list[str]) -> tuple[Key, ...]:
    """Return the first MAX_KEYS keys, with a note if there are more."""
    if len(keys) > MAX_KEYS:
        notes.append(f"it has {len(keys)} keys; the first {MAX_KEYS} are used")
    return keys[:MAX_KEYS]


# -- single objects --------------------------------------------------------------------------


def _ulong(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _label(values: Mapping[int, bytes]) -> str:
    return values.get(spec.CKA_LABEL, b"").decode(errors="replace")


def _name(values: Mapping[int, bytes]) -> str:
    label, number = _label(values), values.get(spec.CKA_ID, b"")
    named = quoted(label) if label else "without a label"
    return f"the object {named}" + (f" (id {number.hex()})" if number else "")


def _key(
    token: TokenId, public: Public, values: Mapping[int, bytes], certificate: bytes = b""
) -> Key:
    """Return a Key for a public key that we use. Raises Odd for any other."""
    curve = ""
    if isinstance(public, rsa.RSAPublicKey):
        key_type, bits = KeyType.RSA, public.key_size
        if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
            raise Odd(f"an RSA key of {bits} bits is not used ({MIN_RSA_BITS}-{MAX_RSA_BITS} are)")
    elif isinstance(public, ec.EllipticCurvePublicKey):
        key_type, bits, curve = KeyType.EC, public.curve.key_size, public.curve.name
        if curve not in CURVE_NAMES:
            raise Odd(f"the curve {curve} is not supported")
    else:
        key_type, bits = KeyType.ED25519, 256
    return Key(
        spki=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        key_type=key_type,
        bits=bits,
        curve=curve,
        label=_label(values),
        token=token,
        id=values.get(spec.CKA_ID, b""),
        certificates=(certificate,) if certificate else (),
        can_sign=any(values.get(spec.CKA_VERIFY, b"\1")),
        can_decrypt=key_type is KeyType.RSA and any(values.get(spec.CKA_ENCRYPT, b"\1")),
        can_derive=key_type is KeyType.EC,
    )


def _from_certificate(token: TokenId, values: Mapping[int, bytes]) -> Key:
    if _ulong(values.get(spec.CKA_CERTIFICATE_TYPE, b"\0")) != spec.CKC_X_509:
        raise Odd("a certificate that is not X.509")
    from cryptography import x509  # large, and a token without certificates needs none of it

    der = values.get(spec.CKA_VALUE, b"")
    try:
        public = x509.load_der_x509_certificate(der).public_key()
    except Exception as error:
        # Foreign DER may fail in many ways, some not foreseen; none may hide the other objects.
        raise Odd("a certificate that cannot be read") from error
    if not isinstance(public, Public):
        raise Odd("a certificate for a key of a kind that is not supported")
    return _key(token, public, values, certificate=der)


def _private(values: Mapping[int, bytes]) -> _Private:
    number = _ulong(values.get(spec.CKA_KEY_TYPE, b""))
    if spec.CKA_KEY_TYPE not in values or number not in _KINDS:
        raise Odd(f"a private key of type 0x{number:x} is not supported")
    flags = (spec.CKA_SIGN, spec.CKA_DECRYPT, spec.CKA_DERIVE, spec.CKA_ALWAYS_AUTHENTICATE)
    return _Private(
        key_type=_KINDS[number],
        id=values.get(spec.CKA_ID, b""),
        label=_label(values),
        modulus=int.from_bytes(values.get(spec.CKA_MODULUS, b""), "big"),
        usable={flag: any(values.get(flag, b"\0")) for flag in flags},
    )


def _add_from_private(token: TokenId, values: Mapping[int, bytes], found: list[Key]) -> None:
    """Add the public half that an RSA private key tells: some tokens hold no object for it."""
    if values.get(spec.CKA_MODULUS) and values.get(spec.CKA_PUBLIC_EXPONENT):
        found.append(_key(token, public_keys.rsa_of(values), values))


def key_of(token: TokenId, spki: bytes) -> Key:
    """Return a Key that has nothing but a public key and a token. Raises ValueError."""
    public = load_der_public_key(spki)
    if not isinstance(public, Public):
        raise ValueError("a key of a kind that is not supported")  # noqa: TRY004 - one error for all
    try:
        return _key(token, public, {})
    except Odd as odd:
        raise ValueError(str(odd)) from None


# -- pairing ---------------------------------------------------------------------------------


def _merge(found: Sequence[Key], certificates: Sequence[Key]) -> list[Key]:
    """Make one Key of the objects that hold the same public key under the same CKA_ID."""
    merged: dict[tuple[bytes, bytes], Key] = {}
    for key in (*found, *certificates):
        name = (key.id, key.spki)
        known = merged.get(name)
        if known is None:
            merged[name] = key
        else:
            merged[name] = replace(
                known,
                label=known.label or key.label,
                certificates=known.certificates + key.certificates,
                can_sign=known.can_sign and key.can_sign,
                can_decrypt=known.can_decrypt and key.can_decrypt,
            )
    return sorted(merged.values(), key=lambda key: (key.id, key.label, key.spki))


def _once(keys: Sequence[Key]) -> tuple[Key, ...]:
    """Leave out a public key's further appearances under other ids, the empty id first."""
    best: dict[bytes, Key] = {}
    for key in keys:
        known = best.get(key.spki)
        if known is None or (key.id and not known.id):
            best[key.spki] = key
    return tuple(key for key in keys if best[key.spki] is key)


def _same_id(keys: Sequence[Key], privates: Sequence[_Private]) -> list[str]:
    """Note every CKA_ID that names more than one key pair."""
    public, private = (Counter(each.id for each in those) for those in (keys, privates))
    notes = []
    for number in public:
        if private[number] > 1 or public[number] > 1:
            where = f"the id {number.hex()}" if number else "an empty id"
            notes.append(
                f"several keys share {where}: the token may use the wrong one, and such"
                " signatures are refused; give each key an id of its own"
            )
    return notes


def _paired(keys: Sequence[Key], privates: Sequence[_Private]) -> Iterator[Key]:
    """Yield each key that has a private half, completed by what the private half tells."""
    known: defaultdict[_Half, list[_Private]] = defaultdict(list)
    for private in privates:
        known[private.half].append(private)
    for key in keys:
        fitting = [private for half in _halves(key) for private in known.get(half, ())]
        if fitting:
            yield _joined(key, next((p for p in fitting if p.label == key.label), fitting[0]))


def _joined(key: Key, private: _Private) -> Key:
    return replace(
        key,
        label=key.label or private.label,
        always_authenticate=private.usable[spec.CKA_ALWAYS_AUTHENTICATE],
        can_sign=private.usable[spec.CKA_SIGN],
        can_decrypt=private.usable[spec.CKA_DECRYPT] and key.key_type is KeyType.RSA,
        can_derive=private.usable[spec.CKA_DERIVE] and key.key_type is KeyType.EC,
    )


def _unpaired(keys: Sequence[Key], privates: Sequence[_Private]) -> list[str]:
    fitting = {half for key in keys for half in _halves(key)}
    return [
        f"the private key {quoted(private.label)} (id {private.id.hex()}) has no public key"
        " and no certificate: import one of them"
        for private in privates
        if private.half not in fitting
    ]
