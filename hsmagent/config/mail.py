"""What the `[mail]` table of the configuration says."""

from dataclasses import dataclass
from enum import StrEnum


class When(StrEnum):
    """When hsmagent-sendmail signs or encrypts."""

    NEVER = "never"
    ASKED = "asked"  # by the message's X-HSMAgent field
    POSSIBLE = "possible"  # when there is a key, or a certificate for everybody
    ALWAYS = "always"  # else the message is not sent


class Roots(StrEnum):
    """Which roots mail is judged by."""

    SYSTEM = "system"  # the system's, and those that `hsmagent roots` holds
    OWN = "own"  # those of `hsmagent roots` alone


@dataclass(frozen=True, slots=True)
class Settings:
    """What hsmagent-sendmail does, and which roots mail programs trust.

    sendmail: the real sendmail, and arguments for it.
    """

    sendmail: tuple[str, ...] = ("/usr/sbin/sendmail",)
    sign: When = When.POSSIBLE
    encrypt: When = When.ASKED
    roots: Roots = Roots.SYSTEM
