"""Finding a token or a key by the name a person gives: PKCS#11 URI, fingerprint, label, serial."""

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from hsmagent.control.client import NONE_PRESENT
from hsmagent.errors import NoSuchKey, TokenGone, UsageError
from hsmagent.model import FINGERPRINT, Key, TokenId, fingerprint, printable, token_name
from hsmagent.ssh.keys import blob_for
from hsmagent.uri import SCHEME, Pkcs11Uri, parse


def names_key(name: Pkcs11Uri | str, key: Key) -> bool:
    """Whether `name` (a URI, a "SHA256:…" fingerprint or a label) means this key."""
    if isinstance(name, Pkcs11Uri):
        return name.matches_key(key)
    if name.startswith(FINGERPRINT):
        return fingerprint_of(key) == name
    return key.label == name


def fingerprint_of(key: Key) -> str | None:
    """Return a key's "SHA256:…", or None where ssh has no name for its kind."""
    blob = blob_for(key)
    return None if blob is None else fingerprint(blob)


def find_key(name: str, keys: Iterable[Key]) -> Key:
    """Return the one key of that name. Raises NoSuchKey when there is none, or more than one."""
    wanted = parse(name) if name.startswith(SCHEME) else name
    found = [key for key in keys if names_key(wanted, key)]
    if not found:
        raise NoSuchKey(f"no key is named {printable(name)!r}; `hsmagent keys` lists them")
    if len(found) > 1:
        raise NoSuchKey(
            f"{len(found)} keys are named {printable(name)!r}; "
            "use a fingerprint or a URI from `hsmagent keys`"
        )
    return found[0]


def find_token(name: str, tokens: Sequence[TokenId]) -> TokenId:
    """Return the one token of that label, serial or URI; with "" the only one there is.

    Raises UsageError naming the choice, TokenGone where there is none.
    """
    wanted = parse(name) if name.startswith(SCHEME) else None
    found = [token for token in tokens if _names_token(name, wanted, token)]
    if len(found) == 1:
        return found[0]
    choice = ", ".join(_choice(found or tokens))
    if not tokens:
        raise TokenGone(NONE_PRESENT)
    if not found:
        raise UsageError(f"no token is named {printable(name)!r}; present: {choice}")
    raise UsageError(f"which token? Name one by label, serial or URI: {choice}")


def _choice(tokens: Sequence[TokenId]) -> list[str]:
    """Return the shortest names that tell these tokens apart: labels, with serials, as URIs."""
    named = [token_name(token) for token in tokens]
    if len(set(named)) < len(named):
        named = [f"{printable(token.label)} ({printable(token.serial)})" for token in tokens]
    if len(set(named)) < len(named):
        named = [exact_uri(token) for token in tokens]
    return sorted(named)


def exact_uri(token: TokenId) -> str:
    """Return a URI that names this token in this module; another module may show it, too."""
    return f"{token.uri}?module-path={quote(token.module, safe='/')}"


def _names_token(name: str, wanted: Pkcs11Uri | None, token: TokenId) -> bool:
    if wanted is not None:
        return wanted.matches_token(token)
    return name in ("", token.label, token.serial, token_name(token))
