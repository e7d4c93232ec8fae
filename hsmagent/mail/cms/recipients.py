"""RecipientInfos: for whom a message is encrypted, and how its key is wrapped.

RFC 5652 section 6.2, RFC 4055 (OAEP), RFC 5753 (elliptic curves), RFC 3565 (AES key wrap).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asn1crypto import algos
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from hsmagent.errors import UsageError
from hsmagent.mail.cms import ber, der, oids
from hsmagent.mail.cms.ber import Malformed, Reader
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.parse import algorithm, load
from hsmagent.mail.spool import Memory
from hsmagent.model import EcdhUnwrap, Key, KeyType, RsaUnwrap, Unwrap

MAX_KARI_KEYS = 1000
_FIELD_MAX = 16 * 1024
_KARI = 0xA1
_DIGEST_NAMES = {dotted: name for name, dotted in oids.DIGESTS.items()}

Ours = Sequence[tuple[Key, Certificate]]


@dataclass(frozen=True, slots=True)
class Recipient:
    """A RecipientInfo that one of our keys can open."""

    key: Key
    what: Unwrap


def find(infos: Iterable[bytes], ours: Ours) -> Recipient | None:
    """Return the first RecipientInfo that is for one of our keys; all are read, one is taken.

    Only what holds an identifier of ours is looked at closely, so that a message to very many
    costs little more than its bytes.
    """
    needles = {c.issuer_and_serial for _, c in ours} | {c.key_identifier for _, c in ours}
    found: Recipient | None = None
    for info in infos:
        if found is None and any(needle in info for needle in needles):
            found = _match(info, ours)
    return found


def _match(info: bytes, ours: Ours) -> Recipient | None:
    if info[0] == ber.SEQUENCE:
        return _transport(Reader(Memory(info)), ours)
    if info[0] == _KARI:
        return _agreement(Reader(Memory(info)), ours)
    return None


# -- RSA: KeyTransRecipientInfo --------------------------------------------------------------


def _transport(reader: Reader, ours: Ours) -> Recipient | None:
    what = "a RecipientInfo"
    reader.enter(ber.SEQUENCE, what)
    reader.element(16, what, ber.INTEGER)
    key = _owner(reader.element(_FIELD_MAX, what), ours)
    kind, parameters = algorithm(reader, what)
    encrypted = reader.octets(_FIELD_MAX, what)
    reader.leave(what)
    if key is None or key.key_type is not KeyType.RSA:
        return None
    if kind == oids.RSA_ENCRYPTION:
        return Recipient(key, RsaUnwrap(encrypted, "pkcs1"))
    if kind == oids.ID_RSAES_OAEP:
        return Recipient(key, _oaep(encrypted, parameters))
    return None


def _oaep(encrypted: bytes, parameters: bytes) -> RsaUnwrap:
    """RSAES-OAEP-params (RFC 4055, section 4.1); what is left out is SHA-1."""
    value = load(algos.RSAESOAEPParams, parameters or der.sequence(), "the OAEP parameters")
    mask, source = value["mask_gen_algorithm"], value["p_source_algorithm"]
    if mask["algorithm"].dotted != oids.ID_MGF1 or source["algorithm"].native != "p_specified":
        raise Malformed("OAEP parameters of an unknown kind")
    hash_name = _DIGEST_NAMES.get(value["hash_algorithm"]["algorithm"].dotted, "")
    mgf_name = _DIGEST_NAMES.get(mask["parameters"]["algorithm"].dotted, "")
    if not hash_name or not mgf_name:
        raise Malformed("OAEP parameters with an unknown hash")
    return RsaUnwrap(encrypted, "oaep", hash_name, mgf_name, bytes(source["parameters"].native))


# -- elliptic curves: KeyAgreeRecipientInfo --------------------------------------------------


def _agreement(reader: Reader, ours: Ours) -> Recipient | None:
    what = "a RecipientInfo"
    reader.enter(_KARI, what)
    reader.element(16, what, ber.INTEGER)
    reader.enter(ber.context(0), what)
    if reader.peek() != ber.context(1):
        return None  # a static originator key: nobody sends that
    point = _originator_key(reader)
    reader.leave(what)
    ukm = None
    if reader.peek() == ber.context(1):
        reader.enter(ber.context(1), what)
        ukm = reader.octets(_FIELD_MAX, what)
        reader.leave(what)
    kind, wrap = algorithm(reader, what)
    found = _own_key(reader, ours)
    if found is None or kind not in oids.ECDH:
        return None
    key, encrypted = found
    wrap_kind, _ = algorithm(Reader(Memory(wrap)), what)
    if wrap_kind not in oids.AES_WRAP or key.key_type is not KeyType.EC:
        return None
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
    """Return our key for an IssuerAndSerialNumber, [0] key identifier or [0] RecipientKeyId."""
    if identifier[0] == ber.SEQUENCE:
        return next((k for k, c in ours if c.issuer_and_serial == identifier), None)
    reader = Reader(Memory(identifier))
    if identifier[0] == ber.context(0):
        reader.enter(ber.context(0), "a key identifier")
        wanted = reader.octets(_FIELD_MAX, "a key identifier")
    elif identifier[0] == ber.KEY_IDENTIFIER:
        wanted = reader.octets(_FIELD_MAX, "a key identifier", ber.KEY_IDENTIFIER)
    else:
        return None
    return next((key for key, c in ours if c.key_identifier == wanted), None)


# -- sending ---------------------------------------------------------------------------------


def info_for(certificate: Certificate, key: bytes, *, oaep: bool = False) -> bytes:
    """Return a RecipientInfo that gives `key` to the owner of a certificate."""
    who = certificate.name
    try:
        public = serialization.load_der_public_key(certificate.spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"the certificate of {who} has a key we cannot use: {error}") from None
    if isinstance(public, rsa.RSAPublicKey) and "key_encipherment" in certificate.key_usage:
        return _for_rsa(certificate, public, key, oaep=oaep)
    if isinstance(public, ec.EllipticCurvePublicKey) and "key_agreement" in certificate.key_usage:
        return _for_ec(certificate, public, key)
    raise UsageError(f"the certificate of {who} is for signing only, not for encryption")


def _for_rsa(
    certificate: Certificate, public: rsa.RSAPublicKey, key: bytes, *, oaep: bool
) -> bytes:
    if oaep or certificate.parsed.public_key.algorithm == "rsaes_oaep":
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
