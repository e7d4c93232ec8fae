"""The rules of a login: which PIN is not even tried, and how long a login lasts."""

from dataclasses import dataclass, replace
from math import inf

from hsmagent.errors import PinError, PinLength, TriesLow
from hsmagent.model import PinState, TokenStatus, name_of
from hsmagent.token.failures import absent, locked, not_set
from hsmagent.worker import spec

# -- which PIN is tried ----------------------------------------------------------------------


def pin_state(flags: int) -> PinState:
    """Return what CK_TOKEN_INFO's flags say of the user PIN; of several, the worst state."""
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


def check_usable(status: TokenStatus) -> None:
    """Raise TokenGone, PinLocked or PinError for a token that can take no PIN at all."""
    if not status.present:
        raise absent(status.id, status.obstacle)
    if status.pin_state is PinState.LOCKED:
        raise locked(status.id)
    if status.pin_state is PinState.NOT_SET:
        raise not_set(status.id)


def check_pin(status: TokenStatus, pin: bytearray | None) -> None:
    """Raise as `check_usable`, or PinLength or PinError, for a PIN that the token cannot take.

    pin: None: it is typed on the token's PIN pad.
    """
    check_usable(status)
    if pin is not None:
        _check_length(status, len(pin))
    elif not status.pin_pad:
        raise PinError(f"{name_of(status.id)} has no PIN pad: a PIN is needed")


def check_tries(status: TokenStatus, at_worst: PinState) -> None:
    """Raise TriesLow when the PIN's state, as last told, is worse than `at_worst`.

    Tries were used up meanwhile: whoever gave the PIN did not know how much this one may cost.
    """
    state = status.pin_state
    if state is not PinState.LOCKED and state.is_worse_than(at_worst):
        raise TriesLow(
            f"{name_of(status.id)} has few PIN tries left, so this PIN was not tried: "
            "run `hsmagent unlock`"
        )


def _check_length(status: TokenStatus, length: int) -> None:
    """Raise PinLength. Limits that make no sense are ignored: tokens do state such ones."""
    low, high = max(1, status.pin_min), status.pin_max
    if low <= length and (not high or high < low or length <= high):
        return
    allowed = f"{low} to {high}" if high >= low else f"at least {low}"
    raise PinLength(
        f"{name_of(status.id)} takes a PIN of {allowed} characters, so this one was not tried; "
        "that cost no try"
    )


# -- how long it lasts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a login lasts, in seconds: unused (idle), and at most (max)."""

    idle: float
    max: float


@dataclass(frozen=True, slots=True)
class Lease:
    """When a login ends, by the injected clock: at `ends` if nobody uses it, `until` at the latest.

    since: when it began. idle: how long it lasts unused, in seconds.
    """

    since: float
    idle: float
    until: float
    ends: float

    def used(self, now: float) -> "Lease":
        """Return the lease after a use."""
        return Lease(self.since, self.idle, self.until, min(now + self.idle, self.until))

    def shown(self, status: TokenStatus, now: float) -> TokenStatus:
        """Return the status of a token with this login."""
        return replace(
            status,
            logged_in=True,
            idle_left=self.ends - now,
            max_left=self.until - now,
            login_age=now - self.since,
            idle_limit=self.idle,
        )


NO_LEASE = Lease(0.0, 0.0, -inf, -inf)


def lease_of(limits: Limits, now: float) -> Lease:
    """Return the lease of a login that begins now."""
    return Lease(now, limits.idle, now + limits.max, inf).used(now)
