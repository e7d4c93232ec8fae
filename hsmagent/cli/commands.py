"""Every command of `hsmagent`: dispatch, help, parsing and completions are made from this table.

The quick commands import it, so it imports next to nothing. `programs` has the other programs.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# What a value is: shells offer what there is of it.
FILE, FOLDER, KEY, TOKEN, TIME = "file", "folder", "key", "token", "time"


class Option:
    """An option: its spellings, what it means, and its value's name ("" for a flag).

    kind: FILE, FOLDER, KEY, TOKEN, TIME, or "" for any text. choices: the only values.
    many: it may be given more than once.
    """

    __slots__ = ("choices", "kind", "many", "meaning", "names", "value")

    def __init__(
        self,
        names: str,
        meaning: str,
        value: str = "",
        kind: str = "",
        choices: "tuple[str, ...]" = (),
        *,
        many: bool = False,
    ) -> None:
        self.names = names.split()
        self.meaning = meaning
        self.value = value
        self.kind = kind
        self.choices = choices
        self.many = many


class Argument:
    """What stands by position: its name and meaning, and how often (most 0: without a limit)."""

    __slots__ = ("kind", "least", "meaning", "most", "name")

    def __init__(
        self, name: str, meaning: str, kind: str = "", *, least: int = 1, most: int = 1
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.kind = kind
        self.least = least
        self.most = most

    @property
    def shown(self) -> str:
        """How a usage line shows it: "KEY", "[TOKEN]", "FILE..."."""
        name = self.name + ("" if self.most == 1 else "...")
        return name if self.least else f"[{name}]"


class Command:
    """A program, or a command of one: `path` is how it is called, `name` that without "hsmagent ".

    run: "module:function", which takes an `arguments.Given` and returns the exit status; "" for
    a program. own_words: whether it reads its arguments itself, since others follow its own.
    """

    __slots__ = ("argument", "meaning", "name", "options", "own_words", "run")

    def __init__(
        self,
        name: str,
        meaning: str,
        *parts: "Option | Argument",
        run: str = "",
        own_words: bool = False,
    ) -> None:
        self.name = name
        self.meaning = meaning
        self.options = [part for part in parts if isinstance(part, Option)]
        self.argument = next((part for part in parts if isinstance(part, Argument)), None)
        self.run = run
        self.own_words = own_words
        if run:
            self.options.append(HELP)

    @property
    def path(self) -> str:
        """How it is called: "hsmagent smime sign", "hsmagent-smime"."""
        return f"hsmagent {self.name}" if self.run else self.name

    def option(self, name: str) -> Option | None:
        """Return the option of this spelling."""
        return next((option for option in self.options if name in option.names), None)

    def load(self) -> "Callable[[Any], int]":
        """Import the function that runs it."""
        import sys

        module, _, function = self.run.partition(":")
        __import__(module)
        found: Callable[[Any], int] = getattr(sys.modules[module], function)
        return found


HELP = Option("-h --help", "say this")
VERSION = Option("--version", "say which version this is")
JSON = Option("--json", "for a program")
CONFIG = Option("--config", "the configuration file", "FILE", FILE)
RUNTIME_DIR = Option("--runtime-dir", "where the daemon's sockets are", "FOLDER", FOLDER)

SOME_TOKEN = Argument("TOKEN", "a label, a serial number or a PKCS#11 URI", TOKEN, least=0)
MESSAGE = Argument("FILE", "the message; without it, or with -, standard input", FILE, least=0)
CERTIFICATES = Argument("FILE", "certificates, PEM or DER", FILE, most=0)
WANTED = Argument("ADDRESS|FINGERPRINT", "whose, or which one (16 digits of it are enough)")

_CERTIFICATE = Option("--certificate", "one that is not on the token", "FILE", FILE, many=True)
_SIGNING = (
    Option("--key", "a PKCS#11 URI, a fingerprint, a label or an address", "KEY", KEY),
    Option("--from", "whose key signs, instead of the message's From", "ADDRESS"),
    Option("--opaque", "the content inside the signature"),
    Option("--pss", "RSA-PSS instead of PKCS #1 v1.5"),
    Option("--allow-expired", "sign although the certificate has expired"),
    _CERTIFICATE,
)
_TRUST = (
    Option("--ca", "roots to trust, and no others", "FILE", FILE, many=True),
    Option("--crl", "a list of revoked certificates", "FILE", FILE, many=True),
    Option("--require-crl", "a missing one is a failure"),
    Option("--at", "judge as of then (2026-05-01T12:00)", "TIME", TIME),
)

_KEY = Argument("KEY", "a label, a fingerprint (SHA256:…) or a PKCS#11 URI", KEY)
_STDIN = Option("--stdin", "PINs from standard input, one a line, in the order they are asked for")
_MANAGING = (_STDIN, CONFIG, RUNTIME_DIR)
_NAMED = (
    Option("--email", "an address that it is for", "ADDRESS", many=True),
    Option("--subject", "the name in it (CN=Alice Example,O=Example)", "NAME"),
)
_SHARE = Option("--share", "every share of the DKEK, one after the other", "FILE", FILE, many=True)
_PARTS = Option("--parts", "the shares' passwords are given in so many parts", "T")
_YES = Option("--yes", "do not ask before something is lost; a PIN is needed all the same")
_LAST_TRY = Option("--last-try", "go on although one more wrong PIN blocks the token")

SSH_AGENT_OPTIONS = (
    Option("-c", "print commands for csh"),
    Option("-s", "print commands for a Bourne shell"),
    Option("-k", "end the agent that SSH_AGENT_PID names"),
    Option("-d", "stay in the foreground and log everything but secrets"),
    Option("-D", "stay in the foreground"),
    Option("-a", "listen at this socket", "PATH", FILE),
    Option("-E", "the hash of shown fingerprints; none are shown", "HASH", "", ("md5", "sha256")),
    Option("-O", "allow-remote-pkcs11, no-restrict-websafe, websafe-allow=", "FEATURE", many=True),
    Option("-P", "the modules that ssh-add -s may name, as patterns with commas", "PATTERNS"),
    Option("-t", "how long added keys are kept (90, 15m, 1h30m)", "LIFE"),
    Option("--config", "a configuration file, for its tokens too", "FILE", FILE),
)
SSH_AGENT_COMMAND = Argument("COMMAND [ARGUMENT...]", "run this, and end with it", least=0, most=1)

# heading → its commands. A name of two words is a verb of a group.
COMMANDS = {
    "Tokens and keys": (
        Command(
            "status",
            "tokens, login state and time left, PIN state",
            JSON,
            RUNTIME_DIR,
            run="hsmagent.cli.main:status",
        ),
        Command(
            "keys",
            "every key with its SSH line and certificates",
            JSON,
            RUNTIME_DIR,
            run="hsmagent.cli.main:keys",
        ),
        Command(
            "pubkey",
            "one public key, for authorized_keys or a CA",
            _KEY,
            Option("--ssh", "one line, as ssh wants it (the default)"),
            Option("--pem", "SubjectPublicKeyInfo, as openssl wants it"),
            RUNTIME_DIR,
            run="hsmagent.cli.main:pubkey",
        ),
        Command(
            "unlock",
            "give the PIN in this terminal, or on stdin",
            SOME_TOKEN,
            Option("--stdin", "read the PIN from standard input instead of the terminal"),
            Option("--last-try", "go on although one more wrong PIN blocks the token"),
            RUNTIME_DIR,
            run="hsmagent.cli.main:unlock",
        ),
        Command(
            "lock",
            "log out of one token, or of all",
            SOME_TOKEN,
            RUNTIME_DIR,
            run="hsmagent.cli.main:lock",
        ),
        Command(
            "forget-pin",
            "delete the PIN kept in the desktop's keyring",
            SOME_TOKEN,
            RUNTIME_DIR,
            run="hsmagent.cli.main:forget_pin",
        ),
        Command(
            "log",
            "who used which key for what, and what was refused",
            Option("--since", "so long ago (90s, 2h, 3d), or since then (2026-05-01T12:00)", "T"),
            JSON,
            RUNTIME_DIR,
            run="hsmagent.cli.main:log",
        ),
    ),
    "Tokens made and kept": (
        Command(
            "token init",
            "erase a token, or begin a blank one: label, PIN, SO-PIN",
            SOME_TOKEN,
            Option("--label", "what it is called from now on", "LABEL"),
            Option("--backup-shares", "a SmartCard-HSM's keys can be backed up, by so many", "N"),
            Option("--no-backup", "a SmartCard-HSM's keys can never be backed up"),
            *_MANAGING,
            _YES,
            _LAST_TRY,
            run="hsmagent.cli.token:init",
        ),
        Command(
            "token info",
            "what a token is, holds and can make, and the tries of its PINs",
            SOME_TOKEN,
            *_MANAGING,
            run="hsmagent.cli.token:info",
        ),
        Command(
            "token pin",
            "a new PIN for the old one",
            SOME_TOKEN,
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.token:pin",
        ),
        Command(
            "token unblock",
            "a new PIN by the SO-PIN; nothing is lost",
            SOME_TOKEN,
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.token:unblock",
        ),
        Command(
            "token so-pin",
            "a new SO-PIN for the old one",
            SOME_TOKEN,
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.token:so_pin",
        ),
        Command(
            "share make",
            "a new share of a DKEK, which backups are made with",
            Argument("FILE", "a file that is not there yet", FILE),
            Option("--split", "the password in N parts, any T of which give it back", "T/N"),
            *_MANAGING,
            run="hsmagent.cli.backup:make_share",
        ),
        Command(
            "share import",
            "give a SmartCard-HSM the shares of its DKEK",
            Argument("FILE", "the shares' files", FILE, most=0),
            Option("--token", "to which token", "TOKEN", TOKEN),
            Option("--expect", "the check value that must come out", "HEX"),
            _PARTS,
            *_MANAGING,
            run="hsmagent.cli.backup:import_shares",
        ),
        Command(
            "key new",
            "make a key in a token",
            Argument("TYPE", "p256 (the default), rsa2048, ... as `token info` lists", least=0),
            Option("--token", "in which token", "TOKEN", TOKEN),
            Option("--label", "what it is called; without it, what it is for", "LABEL"),
            Option("--for", "what it is for: ssh, mail or both (ssh,mail)", "USES"),
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.key:new",
        ),
        Command(
            "key list",
            "every key with its SSH line and certificates: as `hsmagent keys`",
            JSON,
            RUNTIME_DIR,
            run="hsmagent.cli.main:keys",
        ),
        Command(
            "key test",
            "sign, decrypt and derive with a key, and check what comes out",
            _KEY,
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.key:test",
        ),
        Command(
            "key rename",
            "another label for a key and its certificate",
            Argument("KEY LABEL", "the key, and its new label", KEY, least=2, most=2),
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.key:rename",
        ),
        Command(
            "key delete",
            "delete a key for good",
            _KEY,
            Option("--with-cert", "its certificate too"),
            *_MANAGING,
            _YES,
            _LAST_TRY,
            run="hsmagent.cli.key:delete",
        ),
    ),
    "Backups of a SmartCard-HSM": (
        Command(
            "key backup",
            "wrapped keys in files, as sc-hsm-tool has them",
            Argument("KEY... FOLDER", "the keys, and where to", KEY, least=2, most=0),
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.backup:save",
        ),
        Command(
            "key restore",
            "wrapped keys to a token, with label and certificate",
            Argument("FILE", "backups of keys", FILE, most=0),
            Option("--token", "to which token", "TOKEN", TOKEN),
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.backup:restore",
        ),
        Command(
            "key verify-backup",
            "see without a card whether a backup is good",
            Argument("FILE", "backups of keys", FILE, most=0),
            _SHARE,
            _PARTS,
            *_MANAGING,
            run="hsmagent.cli.backup:verify",
        ),
        Command(
            "key export",
            "the private key out of a backup, under a passphrase",
            Argument("FILE", "a backup of a key", FILE),
            _SHARE,
            _PARTS,
            Option("--out", "where to (PKCS #8, PEM)", "FILE", FILE),
            *_MANAGING,
            _YES,
            run="hsmagent.cli.backup:export",
        ),
    ),
    "Certificates in tokens": (
        Command(
            "cert request",
            "a request to a CA, in PEM, for a key that signs and decrypts mail",
            _KEY,
            *_NAMED,
            *_MANAGING,
            _LAST_TRY,
            run="hsmagent.cli.cert:request",
        ),
        Command(
            "cert self-sign",
            "a certificate by the key itself, put beside it",
            _KEY,
            *_NAMED,
            Option("--days", "for how long it is good (365)", "N"),
            *_MANAGING,
            _YES,
            _LAST_TRY,
            run="hsmagent.cli.cert:self_sign",
        ),
        Command(
            "cert import",
            "put a certificate beside its key, and its authorities' too",
            Argument("FILE", "certificates: PEM, DER or PKCS #7; - is standard input", FILE),
            Option("--key", "beside this key", "KEY", KEY),
            Option("--token", "in this token", "TOKEN", TOKEN),
            *_MANAGING,
            _YES,
            _LAST_TRY,
            run="hsmagent.cli.cert:put",
        ),
        Command(
            "cert export",
            "a key's certificates, in PEM",
            _KEY,
            *_MANAGING,
            run="hsmagent.cli.cert:export",
        ),
        Command(
            "cert delete",
            "delete a key's certificates; the key stays",
            _KEY,
            *_MANAGING,
            _YES,
            _LAST_TRY,
            run="hsmagent.cli.cert:delete",
        ),
        Command(
            "cert list",
            "every certificate in every token",
            *_MANAGING,
            run="hsmagent.cli.cert:listing",
        ),
    ),
    "Mail": (
        Command(
            "smime sign",
            "sign a message or MIME entity",
            MESSAGE,
            *_SIGNING,
            run="hsmagent.cli.smime:run",
        ),
        Command(
            "smime verify",
            "say who signed which part, and whether it holds",
            MESSAGE,
            Option("--json", "the report for a program"),
            Option("--content", "write what is signed there (- is stdout)", "FILE", FILE),
            *_TRUST,
            run="hsmagent.cli.smime:run",
        ),
        Command(
            "smime encrypt",
            "encrypt for those in To and Cc, and for yourself",
            MESSAGE,
            Option("--recipient", "a certificate to encrypt to", "FILE", FILE, many=True),
            Option("--to", "for this address instead of those in To and Cc", "ADDRESS", many=True),
            Option("--not-to-self", "no copy that you can read"),
            Option("--cipher", "AES in which mode", "MODE", choices=("auto", "gcm", "cbc")),
            Option("--oaep", "RSA-OAEP instead of PKCS #1 v1.5"),
            Option("--sign", "sign first"),
            *_SIGNING,
            run="hsmagent.cli.smime:run",
        ),
        Command(
            "smime decrypt",
            "give the entity inside",
            MESSAGE,
            Option("--all", "take off further layers, and verify"),
            Option("--json", "with --all: the report for a program"),
            Option("--report", "with --all: write the report there", "FILE", FILE),
            _CERTIFICATE,
            *_TRUST,
            run="hsmagent.cli.smime:run",
        ),
        Command(
            "contacts add",
            "take in certificates, or those of a message's signers",
            Argument("FILE", "certificates, PEM or DER, or a signed message", FILE, most=0),
            *_TRUST,
            run="hsmagent.cli.contacts:add",
        ),
        Command(
            "contacts list",
            "the certificates of those you write to",
            run="hsmagent.cli.contacts:show",
        ),
        Command(
            "contacts remove",
            "forget certificates",
            WANTED,
            run="hsmagent.cli.contacts:remove",
        ),
        Command(
            "roots add",
            "trust a root to issue certificates",
            CERTIFICATES,
            run="hsmagent.cli.contacts:add_root",
        ),
        Command(
            "roots list",
            "the roots that you trust besides the system's",
            run="hsmagent.cli.contacts:show_roots",
        ),
        Command(
            "roots remove",
            "trust a root no longer",
            WANTED,
            run="hsmagent.cli.contacts:remove_root",
        ),
    ),
    "Programs": (
        Command(
            "daemon",
            "run the agent in the foreground",
            CONFIG,
            RUNTIME_DIR,
            Option("--debug", "log more; never secrets"),
            run="hsmagent.cli.daemon:run",
        ),
        Command(
            "doctor",
            "what is wrong with the set-up, and the remedy",
            JSON,
            CONFIG,
            RUNTIME_DIR,
            run="hsmagent.cli.doctor:run",
        ),
        Command(
            "setup",
            "put units, shell snippets and completions in place",
            Option("--yes", "do not ask"),
            Option("--dry-run", "say what would be done, and leave"),
            Option("--remove", "stop the agent, and take away what setup has put in place"),
            Option("--program", "the hsmagent that the unit runs", "FILE", FILE),
            Option("--no-network", "forbid the agent the network (kept by later runs)"),
            Option("--network", "allow it again, as network HSMs need it"),
            run="hsmagent.cli.setup:run",
        ),
        Command(
            "ssh-agent",
            "a private agent in place of ssh-agent(1)",
            SSH_AGENT_COMMAND,
            *SSH_AGENT_OPTIONS,
            run="hsmagent.cli.ssh_agent:command",
            own_words=True,
        ),
    ),
}

GROUPS = {
    "token": "tokens made usable, and their PINs",
    "share": "the shares of the DKEK that a SmartCard-HSM's backups are made with",
    "cert": "certificates in tokens, and requests for them",
    "key": "keys in tokens: made, tested, kept",
    "smime": "sign, verify, encrypt and decrypt mail",
    "contacts": "the certificates of those you write to",
    "roots": "the roots that you trust to issue certificates",
}

BY_NAME = {command.name: command for commands in COMMANDS.values() for command in commands}


def find(words: "Sequence[str]") -> "tuple[Command | None, Sequence[str]]":
    """Return the command that these words begin with, and what follows its name."""
    for count in (1, 2):
        command = BY_NAME.get(" ".join(words[:count]))
        if command is not None:
            return command, words[count:]
    return None, words
