"""What the daemon knows of tokens and keys, compared with what the configuration says of them."""

import shlex
import socket
from collections.abc import Iterator

from hsmagent.config.discovery import certificate_files
from hsmagent.config.file import Config
from hsmagent.control.names import names_key
from hsmagent.control.values import of_record, to_key
from hsmagent.doctor.finding import Finding, State, Status
from hsmagent.model import Key, PinState, TokenId, printable
from hsmagent.token.failures import TPM_LOCKOUT
from hsmagent.uri import parse

# sshd's MaxAuthTries is 6 unless somebody has changed it, and each key that is offered is a try.
TRIES = 6

# The state of a token's PIN → how bad that is, what is wrong, and the remedy; {} is the token.
_PINS = {
    PinState.FINAL_TRY: (
        State.WARN,
        "has one PIN try left",
        "be sure of the PIN, then `hsmagent unlock --last-try {}`",
    ),
    PinState.LOCKED: (
        State.BAD,
        "is blocked: too many wrong PINs were given",
        "set a new one by the token's SO-PIN: hsmagent token unblock {}",
    ),
    PinState.NOT_SET: (
        State.BAD,
        "has no PIN yet, so its keys cannot be used",
        "set one by the token's SO-PIN: hsmagent token unblock {}",
    ),
}


def of_daemon(status: Status, settings: Config | None) -> Iterator[Finding]:
    """Say what is wrong with tokens, and which entries of the configuration match nothing."""
    present = [token for token in status["tokens"] if token["present"]]
    for token in present:
        yield from _token(token)
    if settings is not None:
        yield from _entries(settings, status, [_id(token) for token in present])
        yield from _certificates(settings.ssh.certificates)
        yield from _upstream(settings.ssh.upstream)


def _token(token: Status) -> Iterator[Finding]:
    name = f"the token “{token['label']}”"
    if token["pin_state"] in _PINS:
        state, fault, remedy = _PINS[PinState(token["pin_state"])]
        if token["pin_state"] == PinState.LOCKED and _id(token).in_tpm:
            remedy = TPM_LOCKOUT  # no SO-PIN ends it
        named = shlex.quote(token["serial"] or token["label"])
        yield Finding("pin", state, f"{name} {fault}", remedy.format(named))
    if token["last_error"]:
        remedy = "take it out and put it in again"
        yield Finding("token", State.WARN, f"{name} failed: {token['last_error']}", remedy)


def _id(token: Status) -> TokenId:
    uri = parse(token["uri"])
    parts = (uri.token or "", uri.serial or "", uri.model or "", uri.manufacturer or "")
    return TokenId(token["module"], *parts)


def _entries(settings: Config, status: Status, present: list[TokenId]) -> Iterator[Finding]:
    """Yield what matches nothing: only to be looked at, as the token may not be plugged in."""
    keys = [_key(key, present) for key in status["listed"]]
    for number, entry in enumerate(settings.keys, 1):
        if not any(names_key(entry.match, key) for key in keys):
            yield _unmatched("[[key]]", number, "hsmagent keys")
    for number, token in enumerate(settings.tokens, 1):
        if not any(token.match.matches_token(each) for each in present):
            yield _unmatched("[[token]]", number, "hsmagent status --json")


def _key(listed: Status, present: list[TokenId]) -> Key:
    """Return a key that `hsmagent keys` lists, as far as an entry's match looks at it."""
    uri = listed["uri"]  # a key of `ssh-add FILE` has none
    token = next(filter(parse(uri).matches_token, present), None) if uri else None
    no_certificates: Status = {"certificates": [], "authorities": []}
    return to_key(listed | no_certificates | {"token": token and of_record(token)})


def _unmatched(kind: str, number: int, command: str) -> Finding:
    sentence = f"the configuration's {kind} number {number} matches nothing that is there now"
    remedy = f"if its token is plugged in, compare its match with `{command}`"
    return Finding("match", State.WARN, sentence, remedy)


def _certificates(patterns: tuple[str, ...]) -> Iterator[Finding]:
    for pattern in patterns:
        if not certificate_files(pattern):
            sentence = f"no certificate is in {printable(pattern, 400)}"
            remedy = "correct certificates under [ssh], or put the certificate there"
            yield Finding("certificates", State.WARN, sentence, remedy)


def _upstream(path: str) -> Iterator[Finding]:
    if not path:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except OSError as error:
            why = error.strerror or "it does not answer"
            sentence = f"the other agent behind this one, {path}, cannot be reached: {why}"
            remedy = "start that agent, or take upstream out of [ssh]"
            yield Finding("upstream", State.WARN, sentence, remedy)
        else:
            yield Finding(
                "upstream", State.OK, f"the other agent behind this one, {path}, is there"
            )


def listed(count: int, status: Status, *, identities_only: bool) -> Finding:
    """Say what ssh-add's list means: `count` keys, compared with those that the daemon knows."""
    check = "ssh"
    usable = sum(key["ssh"] is not None for key in status["listed"])
    if not count and usable:
        sentence = f"ssh sees none of {usable} keys: the agent is locked, or the keys are hidden"
        return Finding(check, State.WARN, sentence, "ssh-add -X, with the password of ssh-add -x")
    if not count:
        remedy = "plug a token in, or see `hsmagent keys` for what was skipped"
        return Finding(check, State.WARN, "ssh sees no keys", remedy)
    if count >= TRIES and not identities_only:
        sentence = f"ssh sees {count} keys, and servers refuse a login after {TRIES} tries"
        remedy = "name the key of each host in ~/.ssh/config: IdentityFile, and IdentitiesOnly yes"
        return Finding(check, State.WARN, sentence, remedy)
    return Finding(check, State.OK, f"ssh sees {count} key{'s' if count > 1 else ''}")
