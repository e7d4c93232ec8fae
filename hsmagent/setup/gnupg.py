"""GnuPG's agent after its configuration was changed: started anew, and told of the keys."""

import subprocess
from collections.abc import Iterator, Mapping

TIMEOUT = 60.0  # seconds for one program of GnuPG
_LATER = "`gpgsm --learn-card` has GnuPG learn the keys"


def end_agent(env: Mapping[str, str]) -> None:
    """End it; it starts anew when it is needed, and reads its configuration then."""
    _run(env, "gpgconf", "--kill", "gpg-agent")


def learn(env: Mapping[str, str]) -> Iterator[str]:
    """Have GnuPG learn the keys, and yield a sentence: that it did, or what is missing."""
    if _run(env, "gpgsm", "--batch", "--learn-card"):
        yield "GnuPG has learned the keys: `gpgsm --list-secret-keys`."
    else:
        yield f'GnuPG sees no key yet. Name "gnupg" in the allow of a key; then {_LATER}.'


def _run(env: Mapping[str, str], *command: str) -> bool:
    try:
        done = subprocess.run(
            command, env=dict(env), capture_output=True, check=False, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
