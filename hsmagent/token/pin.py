"""How a token's PIN stands, and which PINs are not even tried: those it would refuse, or count."""

from hsmagent.errors import PinError, PinLength, TriesLow
from hsmagent.model import PinState, TokenId
from hsmagent.token.failures import locked, name_of
from hsmagent.worker import spec
from hsmagent.worker.messages import TokenInfo

_WORSE = (PinState.OK, PinState.COUNT_LOW, PinState.FINAL_TRY)


def pin_state(flags: int) -> PinState:
    """Return what CK_TOKEN_INFO's flags say of the user PIN; the worst counts."""
    for flag, state in (
        (spec.CKF_USER_PIN_LOCKED, PinState.LOCKED),
        (spec.CKF_USER_PIN_FINAL_TRY, PinState.FINAL_TRY),
        (spec.CKF_USER_PIN_COUNT_LOW, PinState.COUNT_LOW),
    ):
        if flags & flag:
            return state
    required = flags & spec.CKF_LOGIN_REQUIRED
    return (
        PinState.OK if flags & spec.CKF_USER_PIN_INITIALIZED or not required else PinState.NOT_SET
    )


def check_pin(token: TokenId, info: TokenInfo, pin: bytearray | None) -> None:
    """Raise PinLocked, PinLength or PinError for what the token cannot take; None: its PIN pad."""
    if info.flags & spec.CKF_USER_PIN_LOCKED:
        raise locked(token)
    if pin is not None:
        _check_length(token, info, pin)
    elif not info.flags & spec.CKF_PROTECTED_AUTHENTICATION_PATH:
        raise PinError(f"{name_of(token)} has no PIN pad: a PIN is needed.")


def check_tries(token: TokenId, state: PinState, at_worst: PinState) -> None:
    """Raise TriesLow when the PIN stands worse than `at_worst`: nobody knew what a try may cost."""
    if state in _WORSE[_WORSE.index(at_worst) + 1 :]:
        raise TriesLow(
            f"{name_of(token)} has few PIN tries left, so this PIN was not tried: "
            "run `hsmagent unlock`."
        )


def _check_length(token: TokenId, info: TokenInfo, pin: bytearray) -> None:
    """Raise PinLength; a token may state no sane limits."""
    low, high = max(1, info.pin_min), info.pin_max
    if low <= len(pin) and (not high or high < low or len(pin) <= high):
        return
    allowed = f"{low} to {high}" if high >= low else f"at least {low}"
    raise PinLength(f"{name_of(token)} takes a PIN of {allowed} characters; it was not asked.")
