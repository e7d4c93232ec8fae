"""What `hsmagent --help` and `hsmagent COMMAND --help` say, and a wrong command line in short.

Apart from `cli`, since the quick commands import it only then.
"""

# command: (its arguments, what it does)
QUICK = {
    "status": ("[--json]", "tokens, login state and time left, PIN state"),
    "keys": ("[--json]", "every key with its SSH line and certificates"),
    "pubkey": ("KEY [--ssh | --pem]", "one public key, for authorized_keys or a CA"),
    "unlock": ("[TOKEN] [--stdin]", "give the PIN in this terminal, or on stdin"),
    "lock": ("[TOKEN]", "log out of one token, or of all"),
    "forget-pin": ("[TOKEN]", "delete the PIN kept in the desktop's keyring"),
    "log": ("[--since T] [--json]", "who used which key for what, and what was refused"),
}

TOKEN = ("TOKEN", "a label, a serial number or a PKCS#11 URI")
JSON = ("--json", "for a program")
RUNTIME_DIR = ("--runtime-dir D", "where the daemon's sockets are")

# command: (argument, what it means); --json and --runtime-dir are told where they are taken
ARGUMENTS = {
    "pubkey": (
        ("KEY", "a label, a fingerprint (SHA256:…) or a PKCS#11 URI"),
        ("--ssh", "one line, as ssh wants it (the default)"),
        ("--pem", "SubjectPublicKeyInfo, as openssl wants it"),
    ),
    "unlock": (
        TOKEN,
        ("--stdin", "read the PIN from standard input instead of the terminal"),
        ("--last-try", "go on although one more wrong PIN blocks the token"),
    ),
    "lock": (TOKEN,),
    "forget-pin": (TOKEN,),
    "log": (("--since T", "so long ago (90s, 2h, 3d), or since then (2026-05-01T12:00)"),),
}

PROGRAMS = """
Programs
  daemon [--config F]          run the agent in the foreground
  doctor [--json]              what is wrong with the set-up, and the remedy
  ssh-agent [options]          a private agent in place of ssh-agent(1)

Mail
  smime sign | verify          one message in, one out, or what is wrong with it
  smime encrypt | decrypt      likewise
  certs add | list | remove    the certificates of those you write to

KEY and TOKEN are a label or a PKCS#11 URI; COMMAND --help says more.

Exit status: 0 done, 1 failed or refused, 2 wrong usage.
"""


def overview() -> str:
    """Return the text of `hsmagent --help`."""
    quick = "".join(
        f"  {f'{command} {arguments}':29}{sentence}\n"
        for command, (arguments, sentence) in QUICK.items()
    )
    return f"usage: hsmagent COMMAND [options]\n\nTokens and keys\n{quick}{PROGRAMS}"


def line(command: str) -> str:
    """Return how a quick command is called, in one line."""
    return f"usage: hsmagent {command} {QUICK[command][0]}"


def of(command: str) -> str:
    """Return the text of `hsmagent COMMAND --help` for a quick command."""
    arguments, sentence = QUICK[command]
    told = [*ARGUMENTS.get(command, ()), *([JSON] if JSON[0] in arguments else []), RUNTIME_DIR]
    rows = "".join(f"  {name:16} {meaning}\n" for name, meaning in told)
    return f"{line(command)}\n\n{sentence[0].upper()}{sentence[1:]}.\n\n{rows}"
