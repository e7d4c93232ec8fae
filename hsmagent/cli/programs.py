"""The programs besides `hsmagent`: what each takes of the options of the one that it stands in for.

Their help and their completions come from here. Each of the originals has rules of its own, so each
program reads its arguments by itself; a test compares what it takes with this table.
"""

from hsmagent.cli.command import (
    FILE,
    FOLDER,
    HELP,
    KEY,
    RUNTIME_DIR,
    VERSION,
    VERSION_OF_SSH,
    Argument,
    Command,
    Option,
)
from hsmagent.cli.commands import SSH_AGENT_COMMAND, SSH_AGENT_OPTIONS

HSMAGENT = Command("hsmagent", "an agent for keys that live in hardware tokens", HELP, VERSION)

# -h means something else to some of them.
_HELP = Option("--help", "say this")

SSH_AGENT = Command(
    "hsmagent-ssh-agent",
    "a private agent in place of ssh-agent(1)",
    SSH_AGENT_COMMAND,
    *SSH_AGENT_OPTIONS,
    _HELP,
    VERSION_OF_SSH,
)

_FORMS = ("SMIME", "PEM", "DER")
NO_EFFECT = "taken, without effect"

SMIME = Command(
    "hsmagent-smime",
    "a stand-in for `openssl smime` and `openssl cms`, for mutt and Emacs",
    Argument("CERTIFICATE", "with -encrypt: for whom", FILE, least=0, most=0),
    Option("-sign", "sign"),
    Option("-verify", "verify, and give what is signed"),
    Option("-encrypt", "encrypt"),
    Option("-decrypt", "decrypt"),
    Option("-signer", "whose key signs; with -verify: where the certificate goes", "KEY", FILE),
    Option("-inkey", "whose key signs, where -signer does not say it", "KEY", KEY),
    Option(
        "-recip",
        "for whom, or with -decrypt an old certificate of yours",
        "FILE",
        FILE,
        many=True,
    ),
    Option("-certfile", "further certificates", "FILE", FILE, many=True),
    Option("-passin", "where a passphrase would come from; it is not used", "FROM"),
    Option("-in", "the message", "FILE", FILE),
    Option("-out", "where the result goes", "FILE", FILE),
    Option("-inform", "the form of the message", "FORM", "", _FORMS),
    Option("-outform", "the form of the result", "FORM", "", _FORMS),
    Option("-content", "what a detached signature is of", "FILE", FILE),
    Option("-CAfile", "roots to trust", "FILE", FILE, many=True),
    Option("-CApath", "a folder of roots to trust", "FOLDER", FOLDER, many=True),
    Option("-to", "a field To before the result", "ADDRESS"),
    Option("-from", "a field From before the result", "ADDRESS"),
    Option("-subject", "a field Subject before the result", "TEXT"),
    Option("-md", "the digest that is signed", "DIGEST", "", ("sha256", "sha384", "sha512")),
    Option("-aes128 -aes192 -aes256", "encrypt by AES in CBC mode"),
    Option("-aes-128-gcm -aes-192-gcm -aes-256-gcm", "encrypt by AES in GCM mode"),
    Option("-nodetach", "the content inside the signature"),
    Option("-binary", "leave line ends as they are"),
    Option("-text", "put a field Content-Type: text/plain before the content"),
    Option("-noverify", "do not ask whether the signer is trusted"),
    Option("-nointern", "the signers are those of -certfile, not those in the message"),
    Option("-crl_check", "fail where a CRL for the signer is missing"),
    Option("-crl_check_all", "fail where a CRL for a certificate of the chain is missing"),
    Option("-attime", "judge as of this time (seconds since 1970)", "SECONDS"),
    Option("-purpose", "what is judged: signatures of mail", "PURPOSE", "", ("smimesign",)),
    Option("-nosmimecap -stream -indef -noindef", NO_EFFECT),
    Option("-keyform", NO_EFFECT, "WORD"),
    Option("--help -help", "say this"),
    VERSION,
)

GPGSM = Command(
    "hsmagent-gpgsm",
    "a stand-in for gpgsm, for git (gpg.format = x509) and Emacs",
    Argument(
        "FILE",
        "the message; with --verify the signature, and - or what is signed",
        FILE,
        most=2,
    ),
    Option("-s --sign", "sign"),
    Option("-b --detach-sign --detach-sig", "sign, and leave the content out"),
    Option("--verify", "verify"),
    Option("-e --encrypt", "encrypt"),
    Option("-d --decrypt", "decrypt"),
    Option("-k --list-keys --list-public-keys", "list the certificates that are known"),
    Option("-K --list-secret-keys", "list those whose keys are in your tokens"),
    Option("-a --armor", "PEM instead of DER"),
    Option("-u --local-user", "whose key signs", "KEY", KEY),
    Option("-r --recipient", "for whom to encrypt", "WHOM"),
    Option("-o --output", "where the result goes", "FILE", FILE),
    Option("--with-colons", "lists for a program"),
    Option("--with-key-data --with-keygrip", "lists with keygrips"),
    Option("--status-fd", "where status lines go", "NUMBER"),
    Option("--batch --yes -q --quiet -v --verbose --no-tty --no-greeting", NO_EFFECT),
    Option("--no-secmem-warning --enable-progress-filter --textmode", NO_EFFECT),
    Option("--with-fingerprint --with-validation --fixed-list-mode", NO_EFFECT),
    Option("--assume-armor --assume-base64 --assume-binary", NO_EFFECT),
    Option("--keyid-format --command-fd --logger-fd --pinentry-mode --homedir", NO_EFFECT, "VALUE"),
    Option("--display --ttyname --ttytype --xauthority", NO_EFFECT, "VALUE"),
    Option("--lc-ctype --lc-messages", NO_EFFECT, "VALUE"),
    _HELP,
    Option("--version", "say in which gpgsm's place this is"),
)

_PASSED = "for the real sendmail"

SENDMAIL = Command(
    "hsmagent-sendmail",
    "a stand-in for sendmail that signs, and encrypts where it is asked to",
    Argument("ADDRESS", "the recipients", least=0, most=0),
    Option("-t", "the recipients are in To, Cc and Bcc"),
    Option("-i -oi", 'a line with only "." does not end the message'),
    Option("-f -r", f"the envelope's sender, {_PASSED}", "ADDRESS"),
    Option("-F", f"the sender's full name, {_PASSED}", "NAME"),
    Option("-C", f"a configuration file, {_PASSED}", "FILE", FILE),
    Option("-B -N -R -V -O -o -h -L -X -M -A -D -p -a", _PASSED, "VALUE"),
    Option("-m -n -v -G -U", _PASSED),
    _HELP,
    VERSION,
)

SCD = Command(
    "hsmagent-scd",
    "GnuPG's scdaemon for keys in tokens, which gpg-agent runs",
    Option("--multi-server", "serve gpg-agent on standard input and output, and at a socket"),
    Option("--server", "the same as --multi-server"),
    Option("--homedir", "GnuPG's folder, for the real scdaemon", "FOLDER", FOLDER),
    Option("--scdaemon", "the real scdaemon, for other cards; else GnuPG's own", "FILE", FILE),
    RUNTIME_DIR,
    _HELP,
    VERSION,
)

PROGRAMS = (HSMAGENT, SSH_AGENT, SMIME, GPGSM, SENDMAIL, SCD)
