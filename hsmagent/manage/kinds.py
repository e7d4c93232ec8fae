"""The kinds of key that `key new` makes, and the Cryptoki templates for each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hsmagent.errors import UsageError
from hsmagent.model import printable
from hsmagent.worker import spec
from hsmagent.worker.orders import Attributes, Mechanism

SSH, MAIL = "ssh", "mail"
USES = (SSH, MAIL)
_TRUE = b"\1"
_EXPONENT = bytes.fromhex("010001")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of key: the mechanism that makes it, its size in bits, its curve (CKA_EC_PARAMS).

    seconds: about how long a card takes to make one; a software token takes moments.
    """

    name: str
    mechanism: int
    bits: int
    curve: bytes = b""
    seconds: int = 3


_RSA = [
    Kind(f"rsa{bits}", spec.CKM_RSA_PKCS_KEY_PAIR_GEN, bits, seconds=seconds)
    for bits, seconds in ((2048, 30), (3072, 90), (4096, 180))
]
_CURVES = (
    ("p256", 256, "06082a8648ce3d030107"),
    ("p384", 384, "06052b81040022"),
    ("p521", 521, "06052b81040023"),
    ("brainpool256", 256, "06092b2403030208010107"),
    ("brainpool384", 384, "06092b240303020801010b"),
    ("brainpool512", 512, "06092b240303020801010d"),
)
_EC = [
    Kind(name, spec.CKM_EC_KEY_PAIR_GEN, bits, bytes.fromhex(oid)) for name, bits, oid in _CURVES
]
# By RFC 8410's OID, since not all modules know the curve's name (PKCS#11 3.0, section 2.3.10).
_ED25519 = Kind("ed25519", spec.CKM_EC_EDWARDS_KEY_PAIR_GEN, 256, bytes.fromhex("06032b6570"))
KINDS = {kind.name: kind for kind in (*_EC, *_RSA, _ED25519)}
DEFAULT = "p256"


def kind_of(name: str) -> Kind:
    """Return a kind by its name. Raises UsageError."""
    kind = KINDS.get(name or DEFAULT)
    if kind is None:
        raise UsageError(f"{printable(name)!r} is no kind of key; there are: {', '.join(KINDS)}")
    return kind


def made_by(mechanisms: Iterable[Mechanism]) -> Iterator[Kind]:
    """Yield the kinds that a token with these mechanisms makes, as far as it says."""
    ranges = {each.number: range(each.least, each.most + 1) for each in mechanisms}
    for kind in KINDS.values():
        sizes = ranges.get(kind.mechanism)
        # Ranges of Edwards curves are in bits with some modules and in bytes with others.
        if sizes is not None and (kind is _ED25519 or kind.bits in sizes):
            yield kind


def templates(
    kind: Kind, key_id: bytes, label: str, uses: Iterable[str]
) -> tuple[Attributes, Attributes]:
    """Return the public and the private key's template."""
    rsa = not kind.curve
    common = ((spec.CKA_TOKEN, _TRUE), (spec.CKA_ID, key_id), (spec.CKA_LABEL, label.encode()))
    public: list[tuple[int, bytes]] = [*common, (spec.CKA_VERIFY, _TRUE)]
    private: list[tuple[int, bytes]] = [
        *common,
        (spec.CKA_PRIVATE, _TRUE),
        (spec.CKA_SENSITIVE, _TRUE),
        (spec.CKA_SIGN, _TRUE),
    ]
    if rsa:
        public += [
            (spec.CKA_MODULUS_BITS, spec.ulong(kind.bits)),
            (spec.CKA_PUBLIC_EXPONENT, _EXPONENT),
        ]
    else:
        public.append((spec.CKA_EC_PARAMS, kind.curve))
    if MAIL in uses and kind is not _ED25519:  # which only signs
        public.append((spec.CKA_ENCRYPT if rsa else spec.CKA_DERIVE, _TRUE))
        private.append((spec.CKA_DECRYPT if rsa else spec.CKA_DERIVE, _TRUE))
    return tuple(public), tuple(private)
