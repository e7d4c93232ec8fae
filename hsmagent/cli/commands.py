"""Every command of `hsmagent`: dispatch, help, parsing and completions are made from this table.

The quick commands import it, so it imports next to nothing. `programs` has the other programs.
"""

from hsmagent.cli.command import (
    CONFIG,
    FILE,
    JSON,
    KEY,
    ONE_KEY,
    RUNTIME_DIR,
    SOME_TOKEN,
    SSH_LINES,
    TIME,
    Argument,
    Command,
    Option,
)
from hsmagent.cli.management import MANAGEMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def _quick(name: str, meaning: str, *parts: Argument | Option) -> Command:
    """Return a command that asks the daemon, prints and leaves: its function is in `main`."""
    run = f"main:{name.replace('-', '_')}"
    return Command(name, meaning, *parts, RUNTIME_DIR, run=run)


def _verb(name: str, meaning: str, *parts: Argument | Option) -> Command:
    """Return a command of a group whose verbs one function runs: `run` of the group's module."""
    return Command(name, meaning, *parts, run=f"{name.partition(' ')[0]}:run")


MESSAGE = Argument("FILE", "the message; without it, or with -, standard input", FILE, least=0)
ANY_FILE = Argument("FILE", "any file; without it, or with -, standard input", FILE, least=0)
CERTIFICATES = Argument("FILE", "certificates, PEM or DER", FILE, most=0)
WANTED = Argument("ADDRESS|FINGERPRINT", "whose, or which one (16 digits of it are enough)")

_CERTIFICATE = Option("--certificate", "one that is not on the token", "FILE", FILE, many=True)
_SIGNING_KEY = Option("--key", "a PKCS#11 URI, a fingerprint, a label or an address", "KEY", KEY)
_SIGNATURE = (
    Option("--opaque", "the content inside the signature"),
    Option("--pss", "RSA-PSS instead of PKCS #1 v1.5"),
    Option("--allow-expired", "sign although the certificate has expired"),
    _CERTIFICATE,
)
_SIGNING = (
    _SIGNING_KEY,
    Option("--from", "whose key signs, instead of the message's From", "ADDRESS"),
    *_SIGNATURE,
)
_RECIPIENT = Option("--recipient", "a certificate to encrypt to", "FILE", FILE, many=True)
_ENCRYPTION = (
    Option("--cipher", "AES in which mode", "MODE", choices=("auto", "gcm", "cbc")),
    Option("--oaep", "RSA-OAEP instead of PKCS #1 v1.5"),
)
_OUTPUT = Option("-o --output", "make this file, instead of writing to stdout", "FILE", FILE)
_TRUST = (
    Option("--ca", "roots to trust, and no others", "FILE", FILE, many=True),
    Option("--crl", "a list of revoked certificates", "FILE", FILE, many=True),
    Option("--require-crl", "fail where a list of revoked certificates is missing"),
    Option("--at", "judge as of this time (2026-05-01T12:00)", "TIME", TIME),
)

_SERVING = (CONFIG, RUNTIME_DIR, Option("--debug", "log more; never secrets"))

HASHES = ("md5", "sha1", "sha256", "sha384", "sha512")
SSH_AGENT_OPTIONS = (
    Option("-c", "print commands for csh"),
    Option("-s", "print commands for a Bourne shell"),
    Option("-k", "end the agent that SSH_AGENT_PID names"),
    Option("-d", "stay in the foreground and log everything but secrets"),
    Option("-D", "stay in the foreground"),
    Option("-a", "listen at this socket", "PATH", FILE),
    Option("-E", "taken, without effect: no fingerprints are shown", "HASH", "", HASHES),
    Option("-O", "allow-remote-pkcs11, no-restrict-websafe, websafe-allow=", "FEATURE", many=True),
    Option("-P", "the modules that ssh-add -s may name, as patterns with commas", "PATTERNS"),
    Option("-t", "how long added keys are kept (90, 15m, 1h30m)", "LIFE"),
    Option("-T", "put the socket below TMPDIR, where it is without -T, too"),
    Option("-U", "taken, without effect: sockets of others are never removed"),
    Option("-u", "remove stale sockets and end: this agent leaves none"),
    Option("--config", "a configuration file, for its tokens too", "FILE", FILE),
)
SSH_AGENT_COMMAND = Argument("COMMAND [ARGUMENT...]", "run this, and end with it", least=0, most=1)

# heading → its commands. In a name of several words the last one is a verb, the others its group.
COMMANDS = {
    "Tokens and keys": (
        _quick(
            "status",
            "tokens, login state and time left, PIN state; what waits for you",
            Option("--watch", "draw it anew each second, until Ctrl-C"),
            JSON,
        ),
        _quick("keys", "every key with its fingerprint, URI and certificates", SSH_LINES, JSON),
        _quick(
            "pubkey",
            "one public key, for authorized_keys or a CA",
            ONE_KEY,
            Option("--ssh", "one line, as ssh wants it (the default)"),
            Option("--pem", "SubjectPublicKeyInfo, as openssl wants it"),
        ),
        _quick(
            "unlock",
            "log in to a token: its PIN is typed in this terminal, or read with --stdin",
            SOME_TOKEN,
            Option("--stdin", "read the PIN from standard input instead of the terminal"),
            Option("--last-try", "go on although one more wrong PIN blocks the token"),
        ),
        Command("ask-here", "be asked in this terminal what no window can ask", RUNTIME_DIR),
        _quick("lock", "log out of one token, or of all", SOME_TOKEN),
        _quick("refresh", "look at all tokens anew, which ends their logins"),
        _quick("forget-pin", "delete the PIN kept in the desktop's keyring", SOME_TOKEN),
        _quick(
            "log",
            "who used which key for what, what was refused, and wrong PINs",
            Option("--since", "how long ago (90s, 2h, 3d) or from when on (2026-05-01T12:00)", "T"),
            Option("-f --follow", "print what is added, too, until Ctrl-C"),
            JSON,
        ),
    ),
    **MANAGEMENT,
    "Mail": (
        _verb("smime sign", "sign a message or MIME entity", MESSAGE, *_SIGNING),
        _verb(
            "smime verify",
            "say who signed which part, and whether it holds",
            MESSAGE,
            Option("--json", "the report for a program"),
            Option("--content", "write the signed content here (- is stdout)", "FILE", FILE),
            *_TRUST,
        ),
        _verb(
            "smime encrypt",
            "encrypt for those in To and Cc, and for yourself",
            MESSAGE,
            _RECIPIENT,
            Option("--to", "for this address instead of those in To and Cc", "ADDRESS", many=True),
            Option("--not-to-self", "do not encrypt for yourself"),
            *_ENCRYPTION,
            Option("--sign", "sign first"),
            *_SIGNING,
        ),
        _verb(
            "smime decrypt",
            "give the entity inside",
            MESSAGE,
            Option("--all", "take off further layers, and verify"),
            Option("--json", "with --all: the report for a program"),
            Option("--report", "with --all: write the report here", "FILE", FILE),
            _CERTIFICATE,
            *_TRUST,
        ),
        Command(
            "contacts add",
            "take in certificates, or those of a message's signers",
            Argument("FILE", "certificates, PEM or DER, or a signed message", FILE, most=0),
            *_TRUST,
        ),
        Command("contacts list", "the certificates of those you write to", run="contacts:show"),
        Command("contacts remove", "forget certificates", WANTED),
        Command(
            "roots add", "trust a root to issue certificates", CERTIFICATES, run="contacts:add_root"
        ),
        Command("roots list", "the roots that you trust besides the system's", run="contacts:show"),
        Command("roots remove", "trust a root no longer", WANTED, run="contacts:remove"),
    ),
    "Files": (
        _verb(
            "file encrypt",
            "encrypt any file to those who may read it",
            ANY_FILE,
            Option("--to", "for this address, or a token's own", "ADDRESS", many=True),
            _RECIPIENT,
            _OUTPUT,
            *_ENCRYPTION,
        ),
        _verb("file decrypt", "give the file inside", ANY_FILE, _OUTPUT, _CERTIFICATE),
        _verb(
            "file sign",
            "sign any file; the signature is a file of its own",
            ANY_FILE,
            _SIGNING_KEY,
            _OUTPUT,
            *_SIGNATURE,
        ),
        _verb(
            "file verify",
            "say who signed a file, and whether it holds",
            Argument("FILE", "the signature, and the file that it is of", FILE, most=2),
            Option("-o --output", "make this file of what is inside the signature", "FILE", FILE),
            Option("--json", "the report for a program"),
            *_TRUST,
        ),
    ),
    "Programs": (
        Command("daemon", "run the agent in the foreground", *_SERVING),
        Command(
            "pkcs11",
            "serve programs that know keys by PKCS#11, such as Thunderbird, in the foreground",
            *_SERVING,
        ),
        Command(
            "pkcs11 thunderbird",
            "the settings by which Thunderbird signs with your certificate",
            Argument("ADDRESS", "the address that it sends as"),
            run="thunderbird:run",
        ),
        Command(
            "doctor", "what is wrong with the set-up, and the remedy", JSON, CONFIG, RUNTIME_DIR
        ),
        Command(
            "setup",
            "put units, shell snippets, completions and the manual in place",
            Option("--yes", "do not ask"),
            Option("--dry-run", "say what would be done, and leave"),
            Option("--remove", "stop the agent, and take away what setup has put in place"),
            Option("--program", "the hsmagent that the unit runs", "FILE", FILE),
            Option("--no-network", "forbid the agent the network (kept by later runs)"),
            Option("--network", "allow it again, as network HSMs need it"),
            Option("--pkcs11", "serve PKCS#11 programs, too (kept by later runs)"),
            Option("--no-pkcs11", "serve them no longer"),
            Option("--gnupg", "serve GnuPG, too, as its scdaemon (kept by later runs)"),
            Option("--no-gnupg", "serve it no longer"),
        ),
        Command(
            "ssh-agent",
            "a private agent in place of ssh-agent(1)",
            SSH_AGENT_COMMAND,
            *SSH_AGENT_OPTIONS,
            run="ssh_agent:command",
            own_words=True,
        ),
    ),
}

GROUPS = {
    "pkcs11": "serve programs that know keys by PKCS#11, such as Thunderbird, in the foreground",
    "token": "tokens made usable, and their PINs",
    "data": "data that tokens keep",
    "token share": "the shares of the DKEK that a SmartCard-HSM's backups are made with",
    "cert": "certificates in tokens, and requests for them",
    "key": "keys in tokens: made, tested, kept",
    "file": "encrypt and sign files of any kind",
    "smime": "sign, verify, encrypt and decrypt mail",
    "contacts": "the certificates of those you write to",
    "roots": "the roots that you trust to issue certificates",
}

BY_NAME = {command.name: command for commands in COMMANDS.values() for command in commands}


# A group that may be named without the group that it belongs to: `hsmagent share make`.
_SHORT = {"share": ("token", "share")}


def find(words: "Sequence[str]") -> "tuple[Command | None, Sequence[str]]":
    """Return the command that these words begin with, if any, and what follows its name."""
    words = (*_SHORT.get("".join(words[:1]), words[:1]), *words[1:])
    for count in (3, 2, 1):
        command = BY_NAME.get(" ".join(words[:count]))
        if command is not None:
            return command, words[count:]
    return None, words


def group(words: "Sequence[str]") -> "tuple[str, Sequence[str]]":
    """Return the group that these words begin with, or "", and what follows."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in GROUPS:
            return name, words[count:]
    return "", words
