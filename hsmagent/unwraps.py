"""What a mail's content key is unwrapped from: a RecipientInfo (RFC 5652, section 6.2)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RsaUnwrap:
    """KeyTransRecipientInfo (RFC 5652, section 6.2.1): `padding` "pkcs1" or "oaep".

    The OAEP fields (RFC 4055, section 4.1) name hashes as hashlib does; `label` is pSpecified.
    """

    encrypted_key: bytes
    padding: str
    oaep_hash: str = "sha1"
    mgf_hash: str = "sha1"
    label: bytes = b""


@dataclass(frozen=True, slots=True)
class EcdhUnwrap:
    """KeyAgreeRecipientInfo with an ephemeral EC key (RFC 5753).

    point: the originator's public point, uncompressed (04‖x‖y) on the recipient's curve;
    kdf_hash: of the ANSI X9.63 KDF; wrap_bits: the AES key wrap's key size (128, 192, 256);
    shared_info: DER ECC-CMS-SharedInfo; cofactor: dhSinglePass-cofactorDH.
    """

    encrypted_key: bytes
    point: bytes
    kdf_hash: str
    wrap_bits: int
    shared_info: bytes
    cofactor: bool = False


@dataclass(frozen=True, slots=True)
class Kdf:
    """The ANSI X9.63 key derivation (SEC 1, section 3.6.1): hash, bytes wanted, SharedInfo."""

    hash_name: str
    length: int
    shared_info: bytes = b""


Unwrap = RsaUnwrap | EcdhUnwrap
