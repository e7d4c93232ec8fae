"""What GnuPG has signed: a DER DigestInfo (RFC 8017, section 9.2), for ECDSA as well."""

from hsmagent.model import Key, KeyType, Scheme
from hsmagent.scd.errors import Code, Failed

# Everything before the digest, by the name of the hash.
_PREFIXES = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_KINDS = {KeyType.RSA: "rsa-pkcs1", KeyType.EC: "ecdsa"}


def to_sign(key: Key, info: bytes, named: str) -> tuple[Scheme, bytes]:
    """Return scheme and digest, if the DigestInfo is whole and of the hash that is named.

    named: "" where GnuPG names none. Raises Failed for a hash that is not signed here, data that is
    no DigestInfo, or a DigestInfo of another hash.
    """
    if named and named not in _PREFIXES:
        raise Failed(Code.DIGEST_ALGO, "a hash that is not signed here")
    for name, prefix in _PREFIXES.items():
        if info.startswith(prefix) and len(info) == len(prefix) + prefix[-1]:
            if named not in ("", name):
                raise Failed(Code.INV_VALUE, "the data is of another hash than the one named")
            return Scheme(f"{_KINDS[key.key_type]}-{name}"), info[len(prefix) :]
    if named:
        raise Failed(Code.INV_VALUE, "the data is no DigestInfo of the hash that is named")
    raise Failed(Code.DIGEST_ALGO, "the data is no DigestInfo of a hash that is signed here")
