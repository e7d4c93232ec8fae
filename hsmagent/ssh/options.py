"""How an ssh agent is set up."""

from dataclasses import dataclass

from hsmagent.model import PROVIDERS
from hsmagent.ssh.certificates import Certificate
from hsmagent.ssh.fido import WEBSAFE
from hsmagent.ssh.identities import Choice


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """The options of one agent.

    lifetime: of added keys that come without one, in seconds; 0: for ever. providers: patterns
    for `ssh-add -s`, and for FIDO keys. certificates: for the tokens' keys, offered beside them.
    websafe: patterns of the applications whose FIDO keys sign anything (`fido.check_origin`).
    """

    lifetime: int = 0
    providers: tuple[str, ...] = PROVIDERS
    allow_remote_pkcs11: bool = False
    websafe: tuple[str, ...] = WEBSAFE
    choices: tuple[Choice, ...] = ()
    certificates: tuple[Certificate, ...] = ()
