"""What the `[mail]` table of the configuration says; the commands hand it to the faces."""

from dataclasses import dataclass
from enum import StrEnum


class When(StrEnum):
    """When hsmagent-sendmail signs or encrypts."""

    NEVER = "never"
    ASKED = "asked"  # by the message's X-HSMAgent field
    POSSIBLE = "possible"  # when there is a key, or a certificate for everybody
    ALWAYS = "always"  # else the message is not sent


@dataclass(frozen=True, slots=True)
class Settings:
    """What hsmagent-sendmail does.

    sendmail: the real program, with arguments of its own.
    """

    sendmail: tuple[str, ...] = ("/usr/sbin/sendmail",)
    sign: When = When.POSSIBLE
    encrypt: When = When.ASKED
