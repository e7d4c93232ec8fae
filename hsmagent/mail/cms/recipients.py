"""RecipientInfos: for whom a message is encrypted, and how its key is wrapped.

RFC 5652 section 6.2, RFC 4055 (OAEP), RFC 5753 (elliptic curves), RFC 3565 (AES key wrap).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asn1crypto import algos
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from hsmagent.errors import UsageError
from hsmagent.mail import purpose
from hsmagent.mail.cms import ber, der, names, oids, public_keys
from hsmagent.mail.cms.ber import Malformed, Reader
from hsmagent.mail.cms.certificates import Certificate, Pair
from hsmagent.mail.cms.parse import algorithm, load, public_key
from hsmagent.mail.spool import Memory
from hsmagent.model import Key, KeyType, printable
from hsmagent.unwraps import EcdhUnwrap, RsaUnwrap, Unwrap

MAX_KARI_KEYS = 1000
_FIELD_MAX = 16 * 1024
_NAMED = 3  # so many recipients are named when none is ours
_KARI = 0xA1
_DIGEST_NAMES = {dotted: name for name, dotted in oids.DIGESTS.items()}

Ours = Sequence[Pair]


@dataclass(frozen=True, slots=True)
class Recipient:
    """A RecipientInfo that one of our keys can open."""

    key: Key
    what: Unwrap


@dataclass(frozen=True, slots=True)
class Nobody:
    """No RecipientInfo can be opened. why: for a person."""

    why: str


class _Unsupported(Exception):
    """A RecipientInfo is for one of our keys, in an unsupported way that str() names."""


def find(infos: Iterable[bytes], ours: Ours) -> Recipient | Nobody:
    """Return the first RecipientInfo that is for one of our keys. Reads all of `infos`.

    Only those that hold a serial number or key identifier of ours are parsed, so that a message to
    very many recipients takes little more than reading its bytes.
    """
    needles = {c.serial_der for _, c in ours} | {c.key_identifier for _, c in ours}
    found: Recipient | None = None
    unsupported, others, many = "", list[str](), 0
    for info in infos:
        many += 1
        if len(others) < _NAMED:
            others += _named(info)
        if found is None and any(needle in info for needle in needles):
            try:
                found = _match(info, ours)
            except _Unsupported as error:
                unsupported = str(error)
    if found is not None:
        return found
    if not unsupported:
        return Nobody(_for_others(others[:_NAMED], many))
    return Nobody(
        f"the message is encrypted for your key, but in a way that is not supported ({unsupported})"
    )


def _for_others(named: Sequence[str], many: int) -> str:
    more = f" and {many - len(named)} more" if many > len(named) else ""
    whom = f"; it is for {', '.join(named)}{more}" if named else ""
    return (
        f"the message is not encrypted for any of your keys{whom}. If that was an earlier "
        "certificate of yours for the same key, `hsmagent contacts add OLD.pem` makes it known"
    )


def _match(info: bytes, ours: Ours) -> Recipient | None:
    if info[0] == ber.SEQUENCE:
        return _transport(Reader(Memory(info)), ours)
    if info[0] == _KARI:
        return _agreement(Reader(Memory(info)), ours)
    return None


def _named(info: bytes) -> list[str]:
    """Return names for those whom a RecipientInfo is for; none where it cannot be read."""
    what, reader = "a RecipientInfo", Reader(Memory(info))
    try:
        if info[0] == ber.SEQUENCE:
            reader.enter(ber.SEQUENCE, what)
            reader.element(16, what, ber.INTEGER)
            return [_identifier(reader.element(_FIELD_MAX, what))]
        if info[0] != _KARI:
            return []
        reader.enter(_KARI, what)
        while reader.peek() not in {ber.SEQUENCE, None}:
            reader.element(_FIELD_MAX, what)
        reader.element(_FIELD_MAX, what)
        reader.enter(ber.SEQUENCE, what)
        found = []
        for data in reader.elements(_FIELD_MAX, _NAMED, what):
            inner = Reader(Memory(data))
            inner.enter(ber.SEQUENCE, what)
            found.append(_identifier(inner.element(_FIELD_MAX, what)))
    except Malformed:
        return []
    return found


def _identifier(data: bytes) -> str:
    if data[0] != ber.SEQUENCE:
        return f"the key with the identifier {data[2:].hex()[-40:]}"
    issuer, serial = names.issuer_and_serial(data)
    return printable(f"the certificate {serial:X} of {names.friendly(issuer) or 'somebody'}")


# -- RSA: KeyTransRecipientInfo --------------------------------------------------------------


def _transport(reader: Reader, ours: Ours) -> Recipient | None:
    what = "a RecipientInfo"
    reader.enter(ber.SEQUENCE, what)
    reader.element(16, what, ber.INTEGER)
    key = _owner(reader.element(_FIELD_MAX, what), ours)
    kind, parameters = algorithm(reader, what)
    encrypted = reader.octets(_FIELD_MAX, what)
    reader.leave(what)
    if key is None:
        return None
    if key.key_type is KeyType.RSA and kind == oids.RSA_ENCRYPTION:
        return Recipient(key, RsaUnwrap(encrypted, "pkcs1"))
    if key.key_type is KeyType.RSA and kind == oids.ID_RSAES_OAEP:
        return Recipient(key, _oaep(encrypted, parameters))
    raise _Unsupported(oids.WRAPPING.get(kind, kind))


def _oaep(encrypted: bytes, parameters: bytes) -> RsaUnwrap:
    """RSAES-OAEP-params (RFC 4055, section 4.1); what is left out is SHA-1."""
    value = load(algos.RSAESOAEPParams, parameters or der.sequence(), "the OAEP parameters")
    mask, source = value["mask_gen_algorithm"], value["p_source_algorithm"]
    if mask["algorithm"].dotted != oids.ID_MGF1 or source["algorithm"].native != "p_specified":
        raise _Unsupported("RSA-OAEP with another mask generation or label")
    hash_name = _DIGEST_NAMES.get(value["hash_algorithm"]["algorithm"].dotted, "")
    mgf_name = _DIGEST_NAMES.get(mask["parameters"]["algorithm"].dotted, "")
    if not hash_name or not mgf_name:
        raise _Unsupported("RSA-OAEP with another hash")
    return RsaUnwrap(encrypted, "oaep", hash_name, mgf_name, bytes(source["parameters"].native))


# -- elliptic curves: KeyAgreeRecipientInfo --------------------------------------------------


def _agreement(reader: Reader, ours: Ours) -> Recipient | None:
    what = "a RecipientInfo"
    reader.enter(_KARI, what)
    reader.element(16, what, ber.INTEGER)
    reader.enter(ber.context(0), what)
    # Without a point it is a static originator key, which nobody sends.
    point = _originator_key(reader) if reader.peek() == ber.context(1) else b""
    if not point:
        reader.element(_FIELD_MAX, what)
    reader.leave(what)
    ukm = None
    if reader.peek() == ber.context(1):
        reader.enter(ber.context(1), what)
        ukm = reader.octets(_FIELD_MAX, what)
        reader.leave(what)
    kind, wrap = algorithm(reader, what)
    found = _own_key(reader, ours)
    if found is None:
        return None
    key, encrypted = found
    wrap_kind, _ = algorithm(Reader(Memory(wrap)), what) if wrap else ("no key wrap", b"")
    if kind not in oids.ECDH or wrap_kind not in oids.AES_WRAP:
        how = kind if kind not in oids.ECDH else wrap_kind
        raise _Unsupported(oids.WRAPPING.get(how, how))
    if not point or key.key_type is not KeyType.EC:
        raise _Unsupported("a key agreement that does not go with the key")
    hash_name, cofactor = oids.ECDH[kind]
    bits = oids.AES_WRAP[wrap_kind]
    shared_info = _shared_info(wrap, ukm, bits)
    return Recipient(key, EcdhUnwrap(encrypted, point, hash_name, bits, shared_info, cofactor))


def _originator_key(reader: Reader) -> bytes:
    """OriginatorPublicKey: the ephemeral point, 04‖x‖y."""
    reader.enter(ber.context(1), "the originator's key")
    algorithm(reader, "the originator's key")
    bits = reader.element(1024, "the originator's key", ber.BIT_STRING)
    reader.leave("the originator's key")
    return Reader(Memory(bits)).octets(1024, "the originator's key", ber.BIT_STRING)[1:]


def _own_key(reader: Reader, ours: Ours) -> tuple[Key, bytes] | None:
    what = "RecipientEncryptedKeys"
    found: tuple[Key, bytes] | None = None
    reader.enter(ber.SEQUENCE, what)
    for data in reader.elements(_FIELD_MAX, MAX_KARI_KEYS, what):
        inner = Reader(Memory(data))
        inner.enter(ber.SEQUENCE, what)
        key = _owner(inner.element(_FIELD_MAX, what), ours)
        encrypted = inner.octets(_FIELD_MAX, what)
        inner.leave(what)
        if key is not None and found is None:
            found = key, encrypted
    reader.leave(what)
    return found


def _shared_info(wrap: bytes, ukm: bytes | None, bits: int) -> bytes:
    """ECC-CMS-SharedInfo (RFC 5753, section 7.2) with the wrap algorithm as it was received."""
    user = der.tlv(0xA0, der.octets(ukm)) if ukm is not None else b""
    return der.sequence(wrap, user, der.tlv(0xA2, der.octets(bits.to_bytes(4, "big"))))


def _owner(identifier: bytes, ours: Ours) -> Key | None:
    return next((key for key, c in ours if c.is_named_by(identifier)), None)


# -- sending ---------------------------------------------------------------------------------


def info_for(certificate: Certificate, key: bytes, *, oaep: bool = False) -> bytes:
    """Return a RecipientInfo that gives `key` to the owner of a certificate.

    Raises UsageError when the certificate is for nothing of the kind.
    """
    if why := purpose.not_for_encryption(certificate):
        raise UsageError(why)
    public = public_keys.load(certificate.spki)
    if isinstance(public, rsa.RSAPublicKey):
        return _for_rsa(certificate, public, key, oaep=oaep)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return _for_ec(certificate, public, key)
    raise UsageError(f"the certificate of {certificate.name} has a key that signs only")


def _for_rsa(
    certificate: Certificate, public: rsa.RSAPublicKey, key: bytes, *, oaep: bool
) -> bytes:
    if oaep or public_key(certificate.spki)[0] == oids.ID_RSAES_OAEP:
        sha256 = der.sequence(der.oid(oids.DIGESTS["sha256"]), der.NULL)
        mask = der.sequence(der.oid(oids.ID_MGF1), sha256)
        parameters = der.sequence(der.tlv(0xA0, sha256), der.tlv(0xA1, mask))
        how = der.sequence(der.oid(oids.ID_RSAES_OAEP), parameters)
        mgf = padding.MGF1(hashes.SHA256())
        encrypted = public.encrypt(key, padding.OAEP(mgf, hashes.SHA256(), None))
    else:
        how = der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL)
        encrypted = public.encrypt(key, padding.PKCS1v15())
    return der.sequence(der.integer(0), certificate.issuer_and_serial, how, der.octets(encrypted))


def _for_ec(certificate: Certificate, public: ec.EllipticCurvePublicKey, key: bytes) -> bytes:
    """Ephemeral-static ECDH. An AES wrap has no parameters, not even NULL (RFC 5753, 7.2)."""
    ephemeral = ec.generate_private_key(public.curve)
    wrap = der.sequence(der.oid(oids.AES_256_WRAP))
    shared = ephemeral.exchange(ec.ECDH(), public)
    kek = X963KDF(hashes.SHA256(), 32, _shared_info(wrap, None, 256)).derive(shared)
    point = ephemeral.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    originator = der.tlv(
        0xA1, der.sequence(der.oid(oids.ID_EC_PUBLIC_KEY)), der.tlv(ber.BIT_STRING, b"\0", point)
    )
    encrypted = keywrap.aes_key_wrap(kek, key)
    for_them = der.sequence(certificate.issuer_and_serial, der.octets(encrypted))
    return der.tlv(
        _KARI,
        der.integer(3),
        der.tlv(0xA0, originator),
        der.sequence(der.oid(oids.DH_STD_SHA256KDF), wrap),
        der.sequence(for_them),
    )
