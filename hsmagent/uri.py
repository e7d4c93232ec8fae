"""PKCS#11 URIs (RFC 7512): how the configuration and the command line name tokens and keys."""

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from hsmagent.errors import UsageError
from hsmagent.model import Key, TokenId, printable

SCHEME = "pkcs11:"

TOKEN_ATTRIBUTES = ("token", "serial", "model", "manufacturer")
OBJECT_ATTRIBUTES = ("object", "id", "type")
# Known to RFC 7512, but they name a library or a slot rather than a token: accepted, not matched.
OTHER_ATTRIBUTES = (
    "library-description",
    "library-manufacturer",
    "library-version",
    "slot-id",
    "slot-description",
    "slot-manufacturer",
)
QUERY_ATTRIBUTES = ("module-path", "module-name")
# A PIN in a URI ends up in process lists, shell histories and config files.
FORBIDDEN = ("pin-value", "pin-source")


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A parsed URI. An attribute that the URI does not name matches everything.

    `id` is CKA_ID as raw bytes; `module_path` and `module_name` come from the query part.
    """

    token: str | None = None
    serial: str | None = None
    model: str | None = None
    manufacturer: str | None = None
    object: str | None = None
    id: bytes | None = None
    type: str | None = None
    module_path: str = ""
    module_name: str = ""

    def matches_token(self, token: TokenId) -> bool:
        """Whether every token attribute that is given equals the token's."""
        wanted = (self.token, self.serial, self.model, self.manufacturer)
        actual = (token.label, token.serial, token.model, token.manufacturer)
        return (
            all(want in (None, have) for want, have in zip(wanted, actual, strict=True))
            and self.module_path in ("", token.module)
            and self.module_name in token.module.rpartition("/")[2]
        )

    def matches_key(self, key: Key) -> bool:
        """Whether the key's token matches, and every object attribute that is given."""
        return (
            key.token is not None
            and self.matches_token(key.token)
            and self.object in (None, key.label)
            and self.id in (None, key.id)
        )


def parse(text: str) -> Pkcs11Uri:
    """Parse a PKCS#11 URI.

    Raises UsageError naming what is wrong: another scheme, an unknown or repeated attribute, or a
    PIN in the URI. It never repeats a value, which may be that PIN.
    """
    if not text.startswith(SCHEME):
        raise UsageError("a PKCS#11 URI must begin with pkcs11:")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError("a PKCS#11 URI must be UTF-8")
    path, _, query = text.removeprefix(SCHEME).partition("?")
    values: dict[str, bytes] = {}
    allowed_in_path = TOKEN_ATTRIBUTES + OBJECT_ATTRIBUTES + OTHER_ATTRIBUTES
    _read(path.split(";"), allowed_in_path, values)
    _read(query.split("&"), QUERY_ATTRIBUTES, values)
    texts = {name: _text(name, value) for name, value in values.items() if name != "id"}
    return Pkcs11Uri(
        **{name: texts.get(name) for name in (*TOKEN_ATTRIBUTES, "object", "type")},
        id=values.get("id"),
        module_path=texts.get("module-path", ""),
        module_name=texts.get("module-name", ""),
    )


def _read(parts: list[str], allowed: tuple[str, ...], values: dict[str, bytes]) -> None:
    for part in filter(None, parts):
        name, equals, value = part.partition("=")
        if name in FORBIDDEN:
            raise UsageError(f"{name} is refused in a PKCS#11 URI: a PIN does not belong there")
        if name not in allowed or not equals:
            raise UsageError(
                f"unknown attribute {printable(name)!r} in a PKCS#11 URI; "
                f"allowed here: {', '.join(allowed)}"
            )
        if name in values:
            raise UsageError(f"attribute {name} is given twice in a PKCS#11 URI")
        values[name] = unquote_to_bytes(value)


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UsageError(f"attribute {name} of a PKCS#11 URI is not UTF-8") from None
