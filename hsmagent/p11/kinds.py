"""How p11-kit's RPC writes the value of an attribute: by its type, and both ends must agree."""

from enum import Enum, auto


class Kind(Enum):
    """What the value of an attribute is."""

    BYTES = auto()
    BYTE = auto()
    NUMBER = auto()
    NUMBERS = auto()
    ATTRIBUTES = auto()


# The number of each CKA_…, in hexadecimal. Attributes that are not here are bytes to both ends, and
# so are dates.
_KINDS = {
    Kind.BYTE: """
        TOKEN=1 PRIVATE=2 TRUSTED=86 SENSITIVE=103 ENCRYPT=104 DECRYPT=105 WRAP=106 UNWRAP=107
        SIGN=108 SIGN_RECOVER=109 VERIFY=10a VERIFY_RECOVER=10b DERIVE=10c EXTRACTABLE=162
        LOCAL=163 NEVER_EXTRACTABLE=164 ALWAYS_SENSITIVE=165 MODIFIABLE=170 COPYABLE=171
        SECONDARY_AUTH=200 ALWAYS_AUTHENTICATE=202 WRAP_WITH_TRUSTED=210 RESET_ON_INIT=301
        HAS_RESET=302 COLOR=405
    """,
    Kind.NUMBER: """
        CLASS=0 CERTIFICATE_TYPE=80 CERTIFICATE_CATEGORY=87 JAVA_MIDP_SECURITY_DOMAIN=88
        KEY_TYPE=100 MODULUS_BITS=121 PRIME_BITS=133 SUB_PRIME_BITS=134 VALUE_BITS=160
        VALUE_LEN=161 KEY_GEN_MECHANISM=166 AUTH_PIN_FLAGS=201 HW_FEATURE_TYPE=300 PIXEL_X=400
        PIXEL_Y=401 RESOLUTION=402 CHAR_ROWS=403 CHAR_COLUMNS=404 BITS_PER_PIXEL=406
        MECHANISM_TYPE=500
    """,
    Kind.NUMBERS: "ALLOWED_MECHANISMS=40000600",
    Kind.ATTRIBUTES: "WRAP_TEMPLATE=40000211 UNWRAP_TEMPLATE=40000212 DERIVE_TEMPLATE=40000213",
}
_BY_TYPE = {
    int(word.partition("=")[2], 16): kind
    for kind, words in _KINDS.items()
    for word in words.split()
}


def kind_of(attribute: int) -> Kind:
    """Return what the value of this attribute is."""
    return _BY_TYPE.get(attribute, Kind.BYTES)
