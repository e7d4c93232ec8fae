"""The object identifiers that we use, by the names their specifications give them."""

from itertools import product

from hsmagent.model import KeyType, Scheme

# RFC 5652, RFC 5083
ID_DATA = "1.2.840.113549.1.7.1"
ID_SIGNED_DATA = "1.2.840.113549.1.7.2"
ID_ENVELOPED_DATA = "1.2.840.113549.1.7.3"
ID_CT_AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"
ID_CONTENT_TYPE = "1.2.840.113549.1.9.3"
ID_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
ID_SIGNING_TIME = "1.2.840.113549.1.9.5"

# RFC 8551, section 2.5.2; RFC 5035
SMIME_CAPABILITIES = "1.2.840.113549.1.9.15"
ID_AA_SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
ID_AA_SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"  # RFC 2634: SHA-1 alone

# RFC 5280, sections 4.1.2.6, 4.2.1.2, 4.2.1.3, 4.2.1.6 and 4.2.1.12
EMAIL_ADDRESS = "1.2.840.113549.1.9.1"
ID_CE_SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
ID_CE_KEY_USAGE = "2.5.29.15"
ID_CE_SUBJECT_ALT_NAME = "2.5.29.17"
ID_CE_EXT_KEY_USAGE = "2.5.29.37"
ANY_EXTENDED_KEY_USAGE = "2.5.29.37.0"
ID_KP_EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"

# RFC 9598
ID_ON_SMTP_UTF8_MAILBOX = "1.3.6.1.5.5.7.8.9"

# RFC 5754, RFC 4055, RFC 8419
RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
ID_RSAES_OAEP = "1.2.840.113549.1.1.7"
ID_MGF1 = "1.2.840.113549.1.1.8"
ID_RSASSA_PSS = "1.2.840.113549.1.1.10"
ID_EC_PUBLIC_KEY = "1.2.840.10045.2.1"
ID_ED25519 = "1.3.101.112"
ECDSA_WITH = {
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}
DIGESTS = {
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}

# Digests that are not supported, so that a person reads their names (RFC 8692, RFC 9688).
OTHER_DIGESTS = {
    "1.2.840.113549.2.5": "MD5",
    "2.16.840.1.101.3.4.2.7": "SHA3-224",
    "2.16.840.1.101.3.4.2.8": "SHA3-256",
    "2.16.840.1.101.3.4.2.9": "SHA3-384",
    "2.16.840.1.101.3.4.2.10": "SHA3-512",
    "2.16.840.1.101.3.4.2.11": "SHAKE128",
    "2.16.840.1.101.3.4.2.12": "SHAKE256",
}
KEY_TYPES: dict[str, str] = {
    RSA_ENCRYPTION: KeyType.RSA,
    ID_RSASSA_PSS: KeyType.RSA,
    ID_RSAES_OAEP: KeyType.RSA,
    ID_EC_PUBLIC_KEY: KeyType.EC,
    ID_ED25519: KeyType.ED25519,
}
_SLH_DSA_SIZES = ("128s", "128f", "192s", "192f", "256s", "256f")
KEY_KINDS = {
    "1.2.840.10040.4.1": "DSA",
    "1.2.840.113549.1.3.1": "DH",
    "1.3.101.110": "X25519",
    "1.3.101.111": "X448",
    "1.3.101.113": "Ed448",
    "1.2.643.7.1.1.1.1": "GOST R 34.10-2012",
    "1.2.643.7.1.1.1.2": "GOST R 34.10-2012",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
    "2.16.840.1.101.3.4.4.1": "ML-KEM-512",
    "2.16.840.1.101.3.4.4.2": "ML-KEM-768",
    "2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
    **{
        f"2.16.840.1.101.3.4.3.{number}": f"SLH-DSA-{digest}-{size}"
        for number, (digest, size) in enumerate(product(("SHA2", "SHAKE"), _SLH_DSA_SIZES), 20)
    },
}

# RFC 3565, RFC 5084
AES_CBC = {
    "2.16.840.1.101.3.4.1.2": 16,
    "2.16.840.1.101.3.4.1.22": 24,
    "2.16.840.1.101.3.4.1.42": 32,
}
AES_GCM = {
    "2.16.840.1.101.3.4.1.6": 16,
    "2.16.840.1.101.3.4.1.26": 24,
    "2.16.840.1.101.3.4.1.46": 32,
}
AES_WRAP = {
    "2.16.840.1.101.3.4.1.5": 128,
    "2.16.840.1.101.3.4.1.25": 192,
    "2.16.840.1.101.3.4.1.45": 256,
}
AES_128_CBC = "2.16.840.1.101.3.4.1.2"
AES_256_CBC = "2.16.840.1.101.3.4.1.42"
AES_128_GCM = "2.16.840.1.101.3.4.1.6"
AES_256_GCM = "2.16.840.1.101.3.4.1.46"
AES_256_WRAP = "2.16.840.1.101.3.4.1.45"
DES_EDE3_CBC = "1.2.840.113549.3.7"

# RFC 5753, section 7.1.4: key agreement scheme → (hash of the X9.63 KDF, cofactor)
DH_STD_SHA256KDF = "1.3.132.1.11.1"
ECDH = {
    "1.3.133.16.840.63.0.2": ("sha1", False),
    "1.3.132.1.11.0": ("sha224", False),
    DH_STD_SHA256KDF: ("sha256", False),
    "1.3.132.1.11.2": ("sha384", False),
    "1.3.132.1.11.3": ("sha512", False),
    "1.3.133.16.840.63.0.3": ("sha1", True),
    "1.3.132.1.14.0": ("sha224", True),
    "1.3.132.1.14.1": ("sha256", True),
    "1.3.132.1.14.2": ("sha384", True),
    "1.3.132.1.14.3": ("sha512", True),
}

# Ways to wrap a content key that are not supported, by name for a person (RFC 8418, RFC 3370).
WRAPPING = {
    "1.2.840.113549.1.9.16.3.6": "3DES key wrap",
    "1.2.840.113549.1.9.16.3.7": "RC2 key wrap",
    "1.2.840.113549.1.9.16.3.5": "Diffie-Hellman",
    "1.2.840.113549.1.9.16.3.19": "ECDH with HKDF",
    "1.2.840.113549.1.9.16.3.20": "ECDH with HKDF",
    "1.2.840.113549.1.9.16.3.21": "ECDH with HKDF",
}


def digest_name(scheme: Scheme) -> str:
    """Return the hash that a signature's content digest uses (RFC 8419: SHA-512 for Ed25519)."""
    return scheme.hash_name or "sha512"


def micalg(scheme: Scheme) -> str:
    """Return the micalg parameter that goes with a signature (RFC 8551, section 3.5.3.2)."""
    return digest_name(scheme).replace("sha", "sha-")
