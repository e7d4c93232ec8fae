"""GnuPG's agent after its configuration was changed: it is ended, and learns the keys."""

from collections.abc import Iterator, Mapping

from hsmagent.setup.session import succeeds

TIMEOUT = 60.0  # seconds for one program of GnuPG


def end_agent(env: Mapping[str, str]) -> None:
    """End GnuPG's agent; it starts when it is needed, and then reads its configuration."""
    succeeds(env, TIMEOUT, "gpgconf", "--kill", "gpg-agent")


def learn(env: Mapping[str, str]) -> Iterator[str]:
    """Have GnuPG learn the keys, and yield a sentence: that it did, or what is missing."""
    if succeeds(env, TIMEOUT, "gpgsm", "--batch", "--learn-card"):
        yield "GnuPG has learned the keys: `gpgsm --list-secret-keys`."
    else:
        yield "GnuPG has learned no key yet. `hsmagent doctor` says what is missing; after that,"
        yield "`gpgsm --learn-card` has it learn them."
