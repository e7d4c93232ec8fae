"""What a worker's Failed means to a person: one sentence, and the right kind of error."""

from hsmagent.errors import (
    LoginNeeded,
    PinError,
    PinIncorrect,
    PinLength,
    PinLocked,
    TokenError,
    TokenGone,
)
from hsmagent.model import TokenId, name_of
from hsmagent.worker import spec
from hsmagent.worker.messages import Failed

_GONE = frozenset(
    {
        spec.CKR_DEVICE_REMOVED,
        spec.CKR_TOKEN_NOT_PRESENT,
        spec.CKR_TOKEN_NOT_RECOGNIZED,
        spec.CKR_SLOT_ID_INVALID,
    }
)

_OF_THE_PIN = frozenset((spec.CKR_PIN_INCORRECT, spec.CKR_PIN_INVALID, spec.CKR_PIN_LOCKED))

TPM_LOCKOUT = "wait until it does again, or run `tpm2_dictionarylockout --clear-lockout`"


def told(failed: Failed) -> str:
    """Return what failed in plain words: "C_Login: the token was removed (CKR_…)"."""
    return f"{failed.where}: {spec.rv_meaning(failed.rv)}" if failed.rv else failed.where


def login_error(token: TokenId, failed: Failed) -> TokenError:
    """Return the error for a failed C_Login."""
    name, rv = name_of(token), failed.rv
    if rv in {spec.CKR_PIN_INCORRECT, spec.CKR_PIN_INVALID}:
        return PinIncorrect(f"the PIN for {name} is wrong", rv)
    if rv == spec.CKR_PIN_LOCKED:
        return locked(token)
    if rv == spec.CKR_PIN_LEN_RANGE:
        return PinLength(f"{name} does not take a PIN of this length", rv)
    if rv in _GONE:
        return TokenGone(f"{name} is not there any more: plug it in again", rv)
    return PinError(f"logging in to {name} failed: {told(failed)}", rv)


def absent(token: TokenId, obstacle: str = "") -> TokenGone:
    """Return the error for a token that is not there, with the remedy.

    obstacle: why it may not be there, if that is known.
    """
    return TokenGone(f"{name_of(token)} is not there: {obstacle or 'plug it in'}")


def managed(token: TokenId) -> TokenGone:
    """Return the error for a token that a command of management uses now."""
    return TokenGone(
        f"{name_of(token)} is being managed: wait until that is done;"
        " `hsmagent status` says by whom"
    )


def locked(token: TokenId) -> PinLocked:
    """Return the error for a token that takes no PIN any more, with the remedy."""
    name = name_of(token)
    if token.in_tpm:
        sentence = f"the TPM takes no PIN for {name}, after too many wrong ones: {TPM_LOCKOUT}"
    else:
        sentence = (
            f"the PIN of {name} is blocked: unblock it with its SO-PIN or PUK, by"
            " `hsmagent token unblock` or the token's own tool"
        )
    return PinLocked(sentence, spec.CKR_PIN_LOCKED)


def not_set(token: TokenId) -> PinError:
    """Return the error for a token that has no user PIN yet, with the remedy."""
    return PinError(
        f"{name_of(token)} has no user PIN yet: `hsmagent token unblock` sets one, with its SO-PIN"
    )


def operation_error(
    token: TokenId, failed: Failed, *, with_pin: bool, late: bool = False
) -> TokenError:
    """Return the error for a failed private-key operation.

    with_pin: it took a PIN. late: the token's login had ended before the operation began.
    """
    name, rv = name_of(token), failed.rv
    if rv in _GONE or (with_pin and rv in _OF_THE_PIN):
        return login_error(token, failed)
    if rv == spec.CKR_USER_NOT_LOGGED_IN or failed.login_lost or late:
        return LoginNeeded(f"the login to {name} has ended: {told(failed)}", rv)
    return TokenError(f"{name} failed: {told(failed)}", rv)
