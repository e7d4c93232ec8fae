"""Mail addresses as they stand in From, To, Cc and Bcc (RFC 5322, section 3.4).

A strict reader in linear time: who signed is decided by comparing these addresses, so a field that
other readers might read differently is refused rather than guessed at.
"""

import re

from hsmagent.errors import UsageError

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<q>"(?:[^"\\\r\n]|\\[^\r\n]|\r?\n[ \t])*")
  | (?P<a>[^\s()<>\[\]:;@\\,."]+)
  | (?P<l>\[[^\[\]\\\r\n]*\])
  | [<>:;@,.(]
    """,
    re.VERBOSE,
)
# Tokens are an atom (a), a quoted string (q), a literal (l) or a special character, which stands
# for itself: the grammar is written in these letters. In a display name dots are obsolete, but
# written ("John Q. Public"); so are brackets ("Rita [Work]"), which nobody takes for an address.
_PHRASE = re.compile(r"[aql.]*")
_ADDR_SPEC = re.compile(r"[aq](\.[aq])*@(a(\.a)*|l)")
Token = tuple[str, str]


def mailboxes(field: str) -> tuple[str, ...]:
    """Return the addr-specs of an address list, as `normal` has them. Raises UsageError."""
    found: list[str] = []
    current: list[Token] = []
    in_group = False
    for kind, text in _tokens(field):
        if kind == ":" and not in_group and _PHRASE.fullmatch(_kinds(current)):
            in_group, current = True, []
        elif kind == "," or (kind == ";" and in_group):
            if current:
                found.append(_mailbox(current))
            current = []
            in_group = in_group and kind == ","
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
        if match is None:
            raise _wrong(field)
        position, text = match.end(), match.group()
        if text == "(":
            position = _after_comment(field, position)
        elif match.lastgroup != "space":
            tokens.append((match.lastgroup or text, text))
    return tokens


def _kinds(tokens: list[Token]) -> str:
    return "".join(kind for kind, _ in tokens)


def _after_comment(field: str, position: int) -> int:
    depth = 1
    while position < len(field):
        character = field[position]
        position += 2 if character == "\\" else 1
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    raise _wrong(field)


def _mailbox(tokens: list[Token]) -> str:
    kinds = _kinds(tokens)
    opening = kinds.find("<")
    if opening < 0 or not kinds.endswith(">"):
        return _addr_spec(tokens)
    before, inside = tokens[:opening], tokens[opening + 1 : -1]
    # Some programs name an address by itself; read either way, it is the same one.
    if before != inside and not _PHRASE.fullmatch(kinds, 0, opening):
        raise _wrong(" ".join(text for _, text in tokens))
    return _addr_spec(inside)


def _addr_spec(tokens: list[Token]) -> str:
    found = "".join(_plain(text) for _, text in tokens)
    # What is not printable would be shown as another one than it is.
    if not _ADDR_SPEC.fullmatch(_kinds(tokens)) or not found.isprintable():
        raise _wrong("".join(text for _, text in tokens))
    return normal(found)


def _plain(word: str) -> str:
    """`"john"@example.org` and `john@example.org` are the same mailbox."""
    if not word.startswith('"'):
        return word
    inner = re.sub(r"\\(.)", r"\1", word[1:-1])
    return inner if re.fullmatch(r"[^\s()<>\[\]:;@\\,\"]+", inner) else word
