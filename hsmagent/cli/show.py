"""The answers of the daemon, laid out for a terminal.

Imports next to nothing: it is on the quick path.
"""

from hsmagent.control.client import NONE_PRESENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

PIN_WORDS = {
    "ok": "ok",
    "count-low": "a wrong one was given",
    "final-try": "ONE TRY LEFT",
    "locked": "LOCKED, unblock it with the SO-PIN or PUK",
    "not-set": "not set yet",
}


def status(answer: "dict[str, Any]") -> str:
    """Lay out `hsmagent status`: what waits for a person, each token, what is wrong beside them."""
    blocks = ["".join([f"{head}: {text}\n" for head, text in waiting(answer)])]
    blocks += [_token(token) for token in answer["tokens"]] or [f"{NONE_PRESENT}\n"]
    wrong, notes = beside_tokens(answer)
    blocks.append("\n".join([*wrong, *notes, ""]))
    return "\n".join(filter(None, blocks))


_WANTS = {"pin": "waits for a PIN", "yes": "waits for a yes", "touch": "waits for a touch"}


def waiting(answer: "dict[str, Any]") -> "list[tuple[str, str]]":
    """Return each request that waits for a person: what it waits for, and what it is."""
    found = []
    for each in answer.get("waiting", ()):
        wants = _WANTS.get(each["wants"], "waits")
        found.append((wants, f"{each['request']}, with the key {each['key']}"))
    return found


def beside_tokens(answer: "dict[str, Any]") -> "tuple[list[str], list[str]]":
    """Return the lines of `hsmagent status` that are about no token: what is wrong, and notes.

    A module that fails, that the configuration does not name and that has shown no token is left to
    `hsmagent doctor`.
    """
    wrong = [
        f"{lease['module']}: {lease['holder']} manages it since {span(lease['age'])}"
        for lease in answer.get("leases", ())
    ]
    wrong += [_trouble(m) for m in answer["modules"] if m["error"] and _matters(m, answer)]
    notes = [
        f"module {m['path']}: {note}" for m in answer["modules"] for note in m.get("notes", ())
    ]
    notes += [
        f"what no window can ask is asked in {each['terminal']} (hsmagent ask-here)"
        for each in answer.get("ask_here", ())
    ]
    return wrong, notes


def _matters(module: "dict[str, Any]", answer: "dict[str, Any]") -> bool:
    named: bool = module.get("named", True)  # an older daemon does not say
    return named or module["path"] in [token["module"] for token in answer["tokens"]]


def _trouble(module: "dict[str, Any]") -> str:
    path, error = module["path"], module["error"]
    return error if path in error else f"module {path}: {error}"


def _token(token: "dict[str, Any]") -> str:
    lines = (f"  {name:8}{text}\n" for name, text in rows(token))
    return f"{token['label']}\n" + "".join(lines)


def rows(token: "dict[str, Any]") -> "list[tuple[str, str]]":
    """Return what there is to say of a token, each with its title."""
    found = [
        ("login", login(token)),
        ("PIN", PIN_WORDS[token["pin_state"]] + (" (PIN pad)" if token["pin_pad"] else "")),
        ("keys", str(token["keys"])),
        ("model", " ".join(filter(None, (token["model"], token["serial"])))),
        ("module", token["module"]),
    ]
    if token["last_error"]:
        found.append(("trouble", token["last_error"]))
    found += [("note", note) for note in token["notes"]]
    return found


def login(token: "dict[str, Any]") -> str:
    """Return a token's login in words: "unlocked, 14 min left (at most 7 h 59 min)"."""
    if not token["present"]:
        return "not present"
    if not token["login_required"]:
        return "not needed"
    if not token["logged_in"]:
        return "locked"
    idle, most = token["idle_left"], token["max_left"]
    if idle is None or most is None:
        return "unlocked"
    if idle >= most:
        return f"unlocked, {span(most)} left"
    return f"unlocked, {span(idle)} left if unused, {span(most)} at most"


def span(seconds: float) -> str:
    """Return a time span in its two largest units: "1 h 30 min", "14 min 5 s", "9 s"."""
    whole = int(seconds)
    days, rest = divmod(whole, _DAY)
    hours, rest = divmod(rest, _HOUR)
    minutes, rest = divmod(rest, _MINUTE)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number) or "0 s"


def log(answer: "dict[str, Any]") -> str:
    """Lay out `hsmagent log`: a line for each entry, with the local time."""
    import time

    return "".join(
        time.strftime("%Y-%m-%d %H:%M:%S  ", time.localtime(line["time"])) + line["text"] + "\n"
        for line in answer["entries"]
    )


def keys(answer: "dict[str, Any]") -> str:
    """Lay out `hsmagent keys`: a block for each key, then notes on the tokens' objects."""
    blocks = [_key(key) for key in answer["keys"]]
    blocks = blocks or ["no keys; `hsmagent status` shows the tokens\n"]
    if answer["notes"]:
        blocks.append("Notes:\n" + "".join(f"  {note}\n" for note in answer["notes"]))
    return "\n".join(blocks)


def ssh_lines(answer: "dict[str, Any]") -> str:
    """Lay out `hsmagent keys --ssh`: a line for each key that ssh has a name for."""
    return "".join(f"{key['ssh']}\n" for key in answer["keys"] if key["ssh"])


def _key(key: "dict[str, Any]") -> str:
    rows = [key["fingerprint"] or "", key["uri"]]
    if not key["ssh"]:
        rows.append("not for ssh, which has no name for this curve")
    rows += [f"certificate: {subject}" for subject in key["certificates"]]
    if key["application"]:
        rows.append(f"application: {key['application']}")
    where = f"on {key['token']}" if key["token"] else "added with ssh-add"
    head = f"{key['label'] or 'unnamed key'} {where}: {key['kind']}\n"
    return head + "".join(f"  {row}\n" for row in rows if row)
