"""The commands that manage tokens: a part of the table in `commands`."""

from hsmagent.cli.command import (
    CONFIG,
    FILE,
    FOLDER,
    JSON,
    KEY,
    ONE_KEY,
    RUNTIME_DIR,
    SOME_TOKEN,
    SSH_LINES,
    TOKEN,
    Argument,
    Command,
    Option,
)

_STDIN = Option("--stdin", "PINs from standard input, one a line, in the order they are asked for")
_ON = Option("--token", "on which token", "TOKEN", TOKEN)
_YES = Option("--yes", "ask for no confirmation; a PIN is needed all the same")
_LAST_TRY = Option("--last-try", "go on although one more wrong PIN blocks the token")
_OFFLINE = (_STDIN, CONFIG, RUNTIME_DIR)
_LOGIN = (*_OFFLINE, _YES, _LAST_TRY)
_NAMED = (
    Option("--email", "an address that it is for", "ADDRESS", many=True),
    Option("--subject", "the name in it (CN=Alice Example,O=Example)", "NAME"),
)
_SHARE = Option("--share", "every share of the DKEK, one after the other", "FILE", FILE, many=True)
_PARTS = Option("--parts", "the shares' passwords are given in so many parts", "T")
_PRIVATE = Option("--private", "behind the PIN")
# As `manage.kinds` makes them, which takes longer to import than a quick command to run.
KEY_TYPES = (
    *("p256", "p384", "p521", "brainpool256", "brainpool384", "brainpool512"),
    *("rsa2048", "rsa3072", "rsa4096", "ed25519"),
)

MANAGEMENT = {
    "Tokens made and kept": (
        Command(
            "token init",
            "erase a token, or begin a blank one: label, PIN, SO-PIN",
            SOME_TOKEN,
            Option("--label", "what it is called from now on", "LABEL"),
            Option("--backup-shares", "how many shares a SmartCard-HSM's backups need", "N"),
            Option("--no-backup", "a SmartCard-HSM's keys can never be backed up"),
            *_LOGIN,
        ),
        Command(
            "token info",
            "what a token is, holds and can make, and the tries of its PINs",
            SOME_TOKEN,
            *_OFFLINE,
        ),
        Command("token pin", "a new PIN for the old one", SOME_TOKEN, *_LOGIN),
        Command("token unblock", "a new PIN by the SO-PIN; nothing is lost", SOME_TOKEN, *_LOGIN),
        Command("token so-pin", "a new SO-PIN for the old one", SOME_TOKEN, *_LOGIN),
        Command(
            "token share make",
            "a new share of a DKEK, which backups are made with",
            Argument("FILE", "a file that is not there yet", FILE),
            Option("--split", "the password in N parts, any T of which give it back", "T/N"),
            *_OFFLINE,
            run="backup:make_share",
        ),
        Command(
            "token share import",
            "give a SmartCard-HSM the shares of its DKEK",
            Argument("FILE", "the shares' files", FILE, most=0),
            _ON,
            Option(
                "--expect",
                "the check value that must come out, or a backup that has it",
                "HEX|FILE",
                FILE,
            ),
            _PARTS,
            *_OFFLINE,
            _YES,
            run="backup:import_shares",
        ),
        Command(
            "key new",
            "make a key in a token",
            Argument(
                "TYPE",
                "p256 (the default), rsa2048, ... as `token info` lists",
                least=0,
                offered=KEY_TYPES,
            ),
            _ON,
            Option("--label", "what it is called; without it, what it is for", "LABEL"),
            Option(
                "--for",
                "what it is for: ssh, mail or both (ssh,mail)",
                "USES",
                offered=("ssh", "mail", "ssh,mail"),
            ),
            *_LOGIN,
        ),
        Command(
            "key list",
            "every key with its SSH line and certificates: as `hsmagent keys`",
            SSH_LINES,
            JSON,
            RUNTIME_DIR,
            run="main:keys",
        ),
        Command(
            "key test",
            "sign, decrypt and derive with a key, and check what comes out",
            ONE_KEY,
            _ON,
            *_LOGIN,
        ),
        Command(
            "key rename",
            "another label for a key and its certificate",
            ONE_KEY,
            Argument("LABEL", "its new label"),
            _ON,
            *_LOGIN,
        ),
        Command(
            "key delete",
            "delete a key for good",
            ONE_KEY,
            Option("--with-cert", "delete its certificate, too"),
            _ON,
            *_LOGIN,
        ),
    ),
    "Backups of a SmartCard-HSM": (
        Command(
            "key backup",
            "wrapped keys in files, as sc-hsm-tool has them",
            Argument("KEY", "the keys", KEY, most=0),
            Argument("FOLDER", "where to", FOLDER),
            _ON,
            *_LOGIN,
            run="backup:save",
        ),
        Command(
            "key restore",
            "wrapped keys to a token, with label and certificate",
            Argument("FILE", "backups of keys", FILE, most=0),
            _ON,
            *_LOGIN,
            run="backup:restore",
        ),
        Command(
            "key verify-backup",
            "see without a card whether a backup is good",
            Argument("FILE", "backups of keys", FILE, most=0),
            _SHARE,
            _PARTS,
            *_OFFLINE,
            run="backup:verify",
        ),
        Command(
            "key export",
            "the private key out of a backup, under a passphrase",
            Argument("FILE", "a backup of a key", FILE),
            _SHARE,
            _PARTS,
            Option("--out", "where to (PKCS #8, PEM)", "FILE", FILE),
            *_OFFLINE,
            _YES,
            run="backup:export",
        ),
    ),
    "Data in tokens": (
        Command(
            "data list",
            "what data a token keeps",
            SOME_TOKEN,
            Option("--private", "also what is behind the PIN"),
            *_LOGIN,
            run="data:listing",
        ),
        Command(
            "data read",
            "write what a data object holds to standard output",
            Argument("LABEL", "what it is called"),
            _ON,
            _PRIVATE,
            *_LOGIN,
        ),
        Command(
            "data write",
            "put a file into a token",
            Argument("LABEL", "what it is to be called"),
            Argument("FILE", "the file; - is standard input", FILE),
            _ON,
            _PRIVATE,
            Option("--application", "the program that it is for", "NAME"),
            *_LOGIN,
        ),
        Command(
            "data delete",
            "delete a data object for good",
            Argument("LABEL", "what it is called"),
            _ON,
            _PRIVATE,
            *_LOGIN,
        ),
    ),
    "Certificates in tokens": (
        Command(
            "cert request",
            "a request to a CA, in PEM, for a key that signs and decrypts mail",
            ONE_KEY,
            *_NAMED,
            _ON,
            *_LOGIN,
        ),
        Command(
            "cert self-sign",
            "a certificate by the key itself, put beside it",
            ONE_KEY,
            *_NAMED,
            Option("--days", "for how long it is good (365)", "N"),
            _ON,
            *_LOGIN,
        ),
        Command(
            "cert import",
            "put a certificate beside its key, and its authorities' too",
            Argument("FILE", "certificates: PEM, DER or PKCS #7; - is standard input", FILE),
            Option("--key", "beside this key", "KEY", KEY),
            _ON,
            *_LOGIN,
            run="cert:put",
        ),
        Command("cert export", "a key's certificates, in PEM", ONE_KEY, _ON, *_OFFLINE),
        Command("cert delete", "delete a key's certificates; the key stays", ONE_KEY, _ON, *_LOGIN),
        Command(
            "cert list", "every certificate in every token", _ON, *_OFFLINE, run="cert:listing"
        ),
    ),
}
