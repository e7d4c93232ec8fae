"""Mail addresses as they stand in From, To, Cc and Bcc (RFC 5322, section 3.4).

A strict reader in linear time: who signed is decided by comparing these addresses, so a field that
other readers might read differently is refused rather than guessed at.
"""

import re

from hsmagent.errors import UsageError

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<quoted>"(?:[^"\\\r\n]|\\[^\r\n]|\r?\n[ \t])*")
  | (?P<atom>[^\s()<>\[\]:;@\\,."]+)
  | (?P<literal>\[[^\[\]\\\r\n]*\])
  | (?P<special>[<>:;@,.(])
    """,
    re.VERBOSE,
)
_WORD = ("atom", "quoted")
Token = tuple[str, str]


def mailboxes(field: str) -> tuple[str, ...]:
    """Return the addr-specs of an address list, as `normal` has them. Raises UsageError."""
    found: list[str] = []
    current: list[Token] = []
    in_group = False
    for kind, text in _tokens(field):
        if kind == "special" and text == ":" and not in_group and _is_phrase(current):
            in_group, current = True, []
        elif kind == "special" and (text == "," or (text == ";" and in_group)):
            if current:
                found.append(_mailbox(current))
            current = []
            in_group = in_group and text == ","
        else:
            current.append((kind, text))
    if current:
        if in_group:
            raise _wrong(field)
        found.append(_mailbox(current))
    return tuple(found)


def normal(address: str) -> str:
    """Return the address with its domain in lower case and in ASCII (RFC 5890).

    The part before the @ stays, since only the domain's owner knows what is the same there.
    """
    local, at, domain = address.rpartition("@")
    return local + at + _ascii(domain.lower())


def folded(address: str) -> str:
    """Return a value that is the same for addresses that differ in letter case alone.

    The owner of the domain decides whether such addresses differ. To find one's own key, or a
    certificate to encrypt to, they may count as one where no exact address is found; who signed is
    decided by `normal`.
    """
    return address.casefold()


def own_addresses(field: str) -> tuple[str, ...]:
    """Return the addresses of a field that we write ourselves, such as From.

    Where `mailboxes` is unsure, it is the one address in angles at the end. Raises UsageError when
    there is an @ but no address that can be read. Empty for a field without any @, such as cron's.
    """
    try:
        return mailboxes(field)
    except UsageError:
        if "@" not in field:
            return ()
        start = field.rfind("<")
        if start < 0 or field.count("<") > 1 or not field.rstrip().endswith(">"):
            raise
        return mailboxes(field[start:])


def _ascii(domain: str) -> str:
    """Return the domain as the DNS has it, unless that would be the name of another one too."""
    if domain.isascii():
        return domain
    try:
        coded = domain.encode("idna")
        return coded.decode("ascii") if coded.decode("idna") == domain else domain
    except UnicodeError:
        return domain


def _wrong(field: str) -> UsageError:
    return UsageError(f"cannot tell the addresses in {field.strip()[:80]!r}")


def _tokens(field: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    while position < len(field):
        match = _TOKEN.match(field, position)
        if match is None or match.lastgroup is None:
            raise _wrong(field)
        position = match.end()
        if match.group() == "(":
            position = _after_comment(field, position)
        elif match.lastgroup != "space":
            tokens.append((match.lastgroup, match.group()))
    return tokens


def _after_comment(field: str, position: int) -> int:
    depth = 1
    while position < len(field):
        character = field[position]
        position += 2 if character == "\\" else 1
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    raise _wrong(field)


def _is_phrase(tokens: list[Token]) -> bool:
    """Tell whether this is a display name; dots are obsolete, but written ("John Q. Public").

    So are brackets ("Rita [Work]"), which nobody takes for an address.
    """
    return all(kind in (*_WORD, "literal") or text == "." for kind, text in tokens)


def _mailbox(tokens: list[Token]) -> str:
    texts = [text for _, text in tokens]
    if tokens[-1] == ("special", ">") and ("special", "<") in tokens:
        opening = tokens.index(("special", "<"))
        # Some programs name an address by itself; read either way, it is the same one.
        same = tokens[:opening] == tokens[opening + 1 : -1]
        if not same and not _is_phrase(tokens[:opening]):
            raise _wrong(" ".join(texts))
        return _addr_spec(tokens[opening + 1 : -1])
    return _addr_spec(tokens)


def _addr_spec(tokens: list[Token]) -> str:
    text = "".join(text for _, text in tokens)
    at = [index for index, token in enumerate(tokens) if token == ("special", "@")]
    if len(at) != 1:
        raise _wrong(text)
    local, domain = tokens[: at[0]], tokens[at[0] + 1 :]
    if not _dotted(local, _WORD):
        raise _wrong(text)
    if not (_dotted(domain, ("atom",)) or [kind for kind, _ in domain] == ["literal"]):
        raise _wrong(text)
    found = "".join(_plain(text) for _, text in local) + "@" + "".join(t for _, t in domain)
    if not found.isprintable():  # it would be shown as another one than it is
        raise _wrong(text)
    return normal(found)


def _dotted(tokens: list[Token], kinds: tuple[str, ...]) -> bool:
    """Tell whether this is `word *("." word)`."""
    return (
        len(tokens) % 2 == 1
        and all(kind in kinds for kind, _ in tokens[::2])
        and all(text == "." for _, text in tokens[1::2])
    )


def _plain(word: str) -> str:
    """`"john"@example.org` and `john@example.org` are the same mailbox."""
    if not word.startswith('"'):
        return word
    inner = re.sub(r"\\(.)", r"\1", word[1:-1])
    return inner if re.fullmatch(r"[^\s()<>\[\]:;@\\,\"]+", inner) else word
