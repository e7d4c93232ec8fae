"""The errors that a person may read.

`str(error)` is one sentence that names the thing and, where there is one, the remedy. It never
holds a PIN, a secret or a message body. Which class it is says whose fault it was and what may
follow; nothing parses the text.
"""


class HsmAgentError(Exception):
    """Anything that we report rather than crash on."""


class UsageError(HsmAgentError):
    """The command line or a request names something that is not there or not allowed."""


class NoSuchKey(UsageError):
    """No key has the name that was given, or more than one has."""


class ConfigError(HsmAgentError):
    """The configuration file is wrong; the sentence names file, key and what is allowed."""


class ProtocolError(HsmAgentError):
    """A peer sent what its protocol does not allow."""


class Unavailable(HsmAgentError):
    """Something we wanted to use (a prompter, the bus) is not there; the next one may serve."""


# -- the person or the policy said no --------------------------------------------------------


class Refused(HsmAgentError):
    """Policy, or the state of the agent, forbids the operation."""


class Cancelled(Refused):
    """The person closed the prompt or chose "no". Ends the request; nothing falls through."""


class TimedOut(Refused):
    """Nobody answered in time."""


# -- the token -------------------------------------------------------------------------------


class TokenError(HsmAgentError):
    """What holds a key failed. `rv` is Cryptoki's return value where there was one (CKR_…)."""

    def __init__(self, message: str, rv: int | None = None) -> None:
        super().__init__(message)
        self.rv = rv


class TokenGone(TokenError):
    """The token was removed, or its session died with it. The login is gone too."""


class WorkerDied(TokenError):
    """The module crashed, or hung past its deadline and was killed. The login is gone too."""


class LoginNeeded(TokenError):
    """The operation needs a login, and there is none, or it has ended."""


class PinError(TokenError):
    """C_Login was not called, or did not succeed."""


class PinNeeded(PinError):
    """A FIDO key wants its PIN for this signature, and none was given."""


class PinIncorrect(PinError):
    """A wrong PIN was counted (CKR_PIN_INCORRECT; FIDO). Never tried again by itself."""


class PinLocked(PinError):
    """The token refuses every PIN until it is unblocked (CKR_PIN_LOCKED)."""


class TriesLow(PinError):
    """Fewer tries are left than was known when the PIN was given; the token was not asked."""


class PinLength(PinError):
    """Shorter or longer than the token allows; the token was not asked."""


# -- across a socket -------------------------------------------------------------------------


def kind_of(error: HsmAgentError) -> str:
    """Return the name by which another process knows an error's class: the nearest class here."""
    return next(kind.__name__ for kind in type(error).__mro__ if _KINDS.get(kind.__name__) is kind)


def of_kind(kind: str, message: str) -> HsmAgentError:
    """Return the error that another process named; an HsmAgentError for a name that is not here."""
    return _KINDS.get(kind, HsmAgentError)(message)


_KINDS = {
    kind.__name__: kind
    for kind in tuple(globals().values())
    if isinstance(kind, type) and issubclass(kind, HsmAgentError)
}
