"""OpenSSH's patterns: `*` and `?` (ssh_config(5), PATTERNS). No pattern takes exponential time."""

from collections.abc import Iterable


def matches(name: str, pattern: str) -> bool:
    """Whether the whole `name` matches one pattern. `*` matches a slash, too."""
    at = in_pattern = 0
    star, resume = -1, 0
    while at < len(name):
        if in_pattern < len(pattern) and pattern[in_pattern] == "*":
            star, resume = in_pattern, at
            in_pattern += 1
        elif in_pattern < len(pattern) and pattern[in_pattern] in ("?", name[at]):
            at += 1
            in_pattern += 1
        elif star >= 0:
            # Let the last star take one more character; stars before it need not be tried again.
            resume += 1
            at, in_pattern = resume, star + 1
        else:
            return False
    return pattern[in_pattern:].strip("*") == ""


def matches_list(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern of the list matches, and none of those negated with "!" does."""
    found = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if matches(name, pattern[1:]):
                return False
        elif matches(name, pattern):
            found = True
    return found
