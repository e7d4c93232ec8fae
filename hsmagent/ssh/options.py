"""The options of an ssh agent."""

from dataclasses import dataclass

from hsmagent.folders import PROVIDERS
from hsmagent.ssh.certificates import Certificate
from hsmagent.ssh.fido import WEBSAFE
from hsmagent.ssh.identities import Choice


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """The options of one agent.

    lifetime: seconds, of added keys that come without one; 0: for ever. providers: patterns for the
    libraries of `ssh-add -s` and of FIDO keys. allow_remote_pkcs11: over a forwarded agent, too.
    certificates: offered beside the tokens' keys. websafe: patterns of the applications whose FIDO
    keys sign anything (`fido.check_origin`).
    """

    lifetime: int = 0
    providers: tuple[str, ...] = PROVIDERS
    allow_remote_pkcs11: bool = False
    websafe: tuple[str, ...] = WEBSAFE
    choices: tuple[Choice, ...] = ()
    certificates: tuple[Certificate, ...] = ()
