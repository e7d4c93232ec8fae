"""What can be done with a key: each mechanism as an operation of the daemon.

The daemon signs messages, which it hashes itself, and digests of the three hashes in use. So a
DigestInfo is taken apart here, and other data (raw RSA, TLS 1.1's MD5 and SHA-1) is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsmagent.control.values import to_base64
from hsmagent.model import Key, KeyType, PurposeKind, Scheme
from hsmagent.p11.rpc import BadCall, Mechanism
from hsmagent.worker import spec

MESSAGE, DIGEST = PurposeKind.PKCS11_MESSAGE, PurposeKind.PKCS11_DIGEST
DECRYPT = PurposeKind.PKCS11_DECRYPT
_MOST_DERIVED = 64

# Hashes by their CKM_…, by their CKG_MGF1_…, and by the CKD_… of their X9.63 KDF.
_HASHES = {spec.CKM_SHA256: "sha256", spec.CKM_SHA384: "sha384", spec.CKM_SHA512: "sha512"}
_OLD_HASHES = {spec.CKM_SHA_1: "sha1", spec.CKM_SHA224: "sha224", **_HASHES}
_MGFS = {
    spec.CKG_MGF1_SHA1: "sha1",
    spec.CKG_MGF1_SHA224: "sha224",
    spec.CKG_MGF1_SHA256: "sha256",
    spec.CKG_MGF1_SHA384: "sha384",
    spec.CKG_MGF1_SHA512: "sha512",
}
_KDFS = {
    spec.CKD_SHA1_KDF: "sha1",
    spec.CKD_SHA224_KDF: "sha224",
    spec.CKD_SHA256_KDF: "sha256",
    spec.CKD_SHA384_KDF: "sha384",
    spec.CKD_SHA512_KDF: "sha512",
}
_LENGTHS = {32: "sha256", 48: "sha384", 64: "sha512"}
# RFC 8017, section 9.2, note 1.
_DIGEST_INFOS = {
    bytes.fromhex("3031300d060960864801650304020105000420"): "sha256",
    bytes.fromhex("3041300d060960864801650304020205000430"): "sha384",
    bytes.fromhex("3051300d060960864801650304020305000440"): "sha512",
}

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """One operation of the daemon: its name, and its fields without the key."""

    op: str
    fields: Fields


Make = Callable[[Mechanism, bytes], Wish]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a mechanism does with a key.

    key_type: for which keys it is. purpose: the word that the key's `allow` must have. make: takes
    the mechanism and the data, and returns the wish. check: looks at the mechanism's parameters
    before there is data. Both raise BadCall.
    """

    key_type: KeyType
    purpose: PurposeKind
    make: Make
    check: Callable[[Mechanism], object] = lambda _: None


def _message(scheme: Scheme) -> Make:
    return lambda _, data: Wish("sign_message", {"scheme": scheme, "message": to_base64(data)})


def _digest(scheme: str, digest: bytes) -> Wish:
    return Wish("sign_digest", {"scheme": Scheme(scheme), "digest": to_base64(digest)})


# -- RSA -------------------------------------------------------------------------------------


def _pkcs1_digest(_: Mechanism, data: bytes) -> Wish:
    size = len(next(iter(_DIGEST_INFOS)))
    name, digest = _DIGEST_INFOS.get(data[:size], ""), data[size:]
    if not name or _LENGTHS.get(len(digest)) != name:
        raise BadCall(spec.CKR_DATA_INVALID)
    return _digest(f"rsa-pkcs1-{name}", digest)


def _pss_hash(mechanism: Mechanism) -> str:
    """Return the hash of PSS parameters: hash and MGF1 the same, and the salt as long.

    Raises BadCall for other parameters, which nobody uses.
    """
    if len(mechanism.parameters) != 3:  # noqa: PLR2004 - hash, MGF, salt
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)
    number, mgf, salt = mechanism.parameters
    name = _HASHES.get(number)  # type: ignore[arg-type]
    if name is None or _MGFS.get(mgf) != name or _LENGTHS.get(salt) != name:  # type: ignore[arg-type]
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)
    return name


def _check_pss(mechanism: Mechanism) -> None:
    name = _pss_hash(mechanism)
    if _PSS_OF.get(mechanism.type, name) != name:
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)


def _pss_digest(mechanism: Mechanism, data: bytes) -> Wish:
    name = _pss_hash(mechanism)
    if _LENGTHS.get(len(data)) != name:
        raise BadCall(spec.CKR_DATA_LEN_RANGE)
    return _digest(f"rsa-pss-{name}", data)


def _decrypt_pkcs1(_: Mechanism, data: bytes) -> Wish:
    return Wish("decrypt", {"encrypted": to_base64(data), "padding": "pkcs1"})


def _oaep(mechanism: Mechanism) -> Fields:
    if len(mechanism.parameters) != 4:  # noqa: PLR2004 - hash, MGF, source and its kind
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)
    number, mgf, source, label = mechanism.parameters
    oaep_hash, mgf_hash = _OLD_HASHES.get(number), _MGFS.get(mgf)  # type: ignore[arg-type]
    told = source == spec.CKZ_DATA_SPECIFIED or not (source or label)
    if oaep_hash is None or mgf_hash is None or not told or not isinstance(label, bytes):
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)
    return {"oaep_hash": oaep_hash, "mgf_hash": mgf_hash, "label": to_base64(label)}


def _decrypt_oaep(mechanism: Mechanism, data: bytes) -> Wish:
    return Wish("decrypt", {"encrypted": to_base64(data), "padding": "oaep", **_oaep(mechanism)})


# -- elliptic curves -------------------------------------------------------------------------


def _ecdsa_digest(_: Mechanism, data: bytes) -> Wish:
    name = _LENGTHS.get(len(data))
    if name is None:
        raise BadCall(spec.CKR_DATA_LEN_RANGE)
    return _digest(f"ecdsa-{name}", data)


def _check_ecdh(mechanism: Mechanism) -> None:
    # Without a KDF the raw shared secret would leave the daemon.
    if not mechanism.parameters or mechanism.parameters[0] not in _KDFS:
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)


def derive(mechanism: Mechanism, key: Key, length: int) -> Wish:
    """Return the wish for a secret of `length` bytes. Raises BadCall."""
    _check_ecdh(mechanism)
    kdf, shared_info, point = mechanism.parameters
    if not isinstance(shared_info, bytes) or not isinstance(point, bytes):
        raise BadCall(spec.CKR_MECHANISM_PARAM_INVALID)
    if not 0 < length <= _MOST_DERIVED:
        raise BadCall(spec.CKR_TEMPLATE_INCONSISTENT)
    # Some programs pass the OCTET STRING around the point, as PKCS#11 2.x had it.
    size = 2 * ((key.bits + 7) // 8) + 1
    return Wish(
        "derive",
        {
            "kdf_hash": _KDFS[kdf],  # type: ignore[index]
            "shared_info": to_base64(shared_info),
            "point": to_base64(point[-size:] if point[:1] == b"\4" else point),
            "length": length,
            "cofactor": False,
        },
    )


# -- the tables ------------------------------------------------------------------------------

_PSS_OF = {
    spec.CKM_SHA256_RSA_PKCS_PSS: "sha256",
    spec.CKM_SHA384_RSA_PKCS_PSS: "sha384",
    spec.CKM_SHA512_RSA_PKCS_PSS: "sha512",
}
_PKCS1_OF = {
    spec.CKM_SHA256_RSA_PKCS: Scheme.RSA_PKCS1_SHA256,
    spec.CKM_SHA384_RSA_PKCS: Scheme.RSA_PKCS1_SHA384,
    spec.CKM_SHA512_RSA_PKCS: Scheme.RSA_PKCS1_SHA512,
}
_ECDSA_OF = {
    spec.CKM_ECDSA_SHA256: Scheme.ECDSA_SHA256,
    spec.CKM_ECDSA_SHA384: Scheme.ECDSA_SHA384,
    spec.CKM_ECDSA_SHA512: Scheme.ECDSA_SHA512,
}

SIGNING: dict[int, Usage] = {
    spec.CKM_RSA_PKCS: Usage(KeyType.RSA, DIGEST, _pkcs1_digest),
    spec.CKM_RSA_PKCS_PSS: Usage(KeyType.RSA, DIGEST, _pss_digest, _check_pss),
    spec.CKM_ECDSA: Usage(KeyType.EC, DIGEST, _ecdsa_digest),
    **{
        number: Usage(KeyType.RSA, MESSAGE, _message(scheme))
        for number, scheme in _PKCS1_OF.items()
    },
    **{
        number: Usage(KeyType.RSA, MESSAGE, _message(Scheme(f"rsa-pss-{name}")), _check_pss)
        for number, name in _PSS_OF.items()
    },
    **{
        number: Usage(KeyType.EC, MESSAGE, _message(scheme)) for number, scheme in _ECDSA_OF.items()
    },
}
DECRYPTING: dict[int, Usage] = {
    spec.CKM_RSA_PKCS: Usage(KeyType.RSA, DECRYPT, _decrypt_pkcs1),
    spec.CKM_RSA_PKCS_OAEP: Usage(KeyType.RSA, DECRYPT, _decrypt_oaep, _oaep),
}

MECHANISMS = (*SIGNING, spec.CKM_RSA_PKCS_OAEP, spec.CKM_ECDH1_DERIVE)

_RSA_BITS, _EC_BITS = (1024, 8192), (256, 521)


def info(mechanism: int) -> tuple[int, int, int]:
    """Return least and most bits of a key, and CKF_… flags. Raises BadCall."""
    if mechanism not in MECHANISMS:
        raise BadCall(spec.CKR_MECHANISM_INVALID)
    flags = spec.CKF_HW
    if mechanism in SIGNING:
        flags |= spec.CKF_MECHANISM_SIGN
    if mechanism in DECRYPTING:
        flags |= spec.CKF_MECHANISM_DECRYPT
    if mechanism == spec.CKM_ECDH1_DERIVE:
        flags |= spec.CKF_MECHANISM_DERIVE
    elif (SIGNING.get(mechanism) or DECRYPTING[mechanism]).key_type is KeyType.RSA:
        return *_RSA_BITS, flags
    return *_EC_BITS, flags | spec.CKF_EC_F_P | spec.CKF_EC_NAMEDCURVE | spec.CKF_EC_UNCOMPRESS
