"""A token, a key in it and a login with that key: what most tests need of each, and no more."""

from hsmagent.model import (
    Destination,
    Key,
    KeyType,
    Peer,
    PinState,
    Process,
    Purpose,
    PurposeKind,
    Request,
    TokenId,
    TokenStatus,
)

TOKEN = TokenId("/usr/lib/opensc-pkcs11.so", "work", "4711", "SmartCard-HSM")
STATUS = TokenStatus(
    TOKEN,
    present=True,
    logged_in=False,
    pin_state=PinState.OK,
    pin_pad=False,
    login_required=True,
    pin_min=4,
    pin_max=16,
)
KEY = Key(b"spki", KeyType.EC, 256, "secp256r1", "ssh", TOKEN, b"\x01")
PEER = Peer(1000, Process(7, "ssh", "/usr/bin/ssh", ("ssh", "h")), (Process(6, "git"),))
LOGIN = Request(
    KEY, Purpose(PurposeKind.SSH, "log in as alice"), PEER, Destination("git.example.org")
)
