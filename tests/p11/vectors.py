"""What p11-kit sends and takes, call by call, in hexadecimal.

OLD was recorded from p11-kit-client.so 0.24.1 with OpenSC's pkcs11-tool and p11tool; C_DeriveKey,
C_SessionCancel and NEW (0.25.6 and later) are spelled out from p11-kit's rpc-message.c.
"""

from typing import Any

from hsmagent.p11.calls import Call
from hsmagent.p11.rpc import CANCEL, Attribute, Mechanism, Room

HANDSHAKE = "0100000029" + b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1".hex()
UNKNOWN = 0xFFFFFFFFFFFFFFFF
SESSION, KEY, SLOT = "0000000000000001", "0000000000000002", "0000000000000001"
X32 = "78" * 32
POINT = "04" * 65
PSS = "000000000000025000000000000000020000000000000020"
OAEP = "000000000000025000000000000000020000000000000000"
ECDH = "000000000000000600000002abcd00000041" + POINT
DERIVED = "000000010000016101000000080000000000000020"
SIGN_INIT = "0000002a00000003754d75" + SESSION
DECRYPT_INIT = "0000002100000003754d75" + SESSION
DERIVE = "0000003e00000005754d756141" + SESSION + "00001050"
GET_VALUES = "00000018000000047575664100000000000000010000000000000001"

Requests = list[tuple[Call, str, list[Any]]]

OLD: Requests = [
    (
        Call.C_Initialize,
        "00000001000000056179796179" + HANDSHAKE + "00010000000100",
        [b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1", 0, b"\0"],
    ),
    (Call.C_Finalize, "0000000200000000", []),
    (Call.C_GetInfo, "0000000300000000", []),
    (Call.C_GetSlotList, "00000004000000037966750000000000", [0, 0]),
    (Call.C_GetSlotList, "00000004000000037966750100000030", [1, 48]),
    (Call.C_GetSlotInfo, "000000050000000175" + SLOT, [1]),
    (Call.C_GetTokenInfo, "000000060000000175" + SLOT, [1]),
    (Call.C_GetMechanismList, "0000000700000003756675" + SLOT + "00000000", [1, 0]),
    (Call.C_GetMechanismInfo, "00000008000000027575" + SLOT + "0000000000000001", [1, 1]),
    (Call.C_OpenSession, "0000000a000000027575" + SLOT + "0000000000000004", [1, 4]),
    (Call.C_CloseSession, "0000000b0000000175" + SESSION, [1]),
    (Call.C_CloseAllSessions, "0000000c0000000175" + SLOT, [1]),
    (Call.C_GetSessionInfo, "0000000d0000000175" + SESSION, [1]),
    (
        Call.C_Login,
        "000000120000000475756179" + SESSION + "0000000000000001010000000431323334",
        [1, 1, None],
    ),
    (
        Call.C_Login,
        "000000120000000475756179" + SESSION + "000000000000000101ffffffff",
        [1, 1, None],
    ),
    (Call.C_Logout, "000000130000000175" + SESSION, [1]),
    (Call.C_DestroyObject, "00000016000000027575" + SESSION + KEY, [1, 2]),
    (Call.C_GetAttributeValue, GET_VALUES + "000000010000000400000000", [1, 1, (Room(4, 0),)]),
    (
        Call.C_GetAttributeValue,
        GET_VALUES + "0000000200000180000008000000018100000800",
        [1, 1, (Room(0x180, 2048), Room(0x181, 2048))],
    ),
    (
        Call.C_GetAttributeValue,
        GET_VALUES + "000000014000021100000030",
        [1, 1, (Room(0x40000211, 48),)],
    ),
    (Call.C_FindObjectsInit, "0000001a00000003756141" + SESSION + "00000000", [1, ()]),
    (
        Call.C_FindObjectsInit,
        "0000001a00000003756141" + SESSION + "00000004"
        "0000010201000000010000000101"
        "00000003010000000300000003727361"
        "0000000001000000080000000000000003"
        "00000001010000000101",
        [
            1,
            (
                Attribute(0x102, b"\1"),
                Attribute(3, b"rsa"),
                Attribute(0, 3),
                Attribute(1, 1),
            ),
        ],
    ),
    (Call.C_FindObjects, "0000001b00000003756675" + SESSION + "00002000", [1, 8192]),
    (Call.C_FindObjectsFinal, "0000001c0000000175" + SESSION, [1]),
    (
        Call.C_DecryptInit,
        DECRYPT_INIT + "00000009" + OAEP + "ffffffff" + KEY,
        [1, Mechanism(9, (0x250, 2, 0, b"")), 2],
    ),
    (
        Call.C_DecryptInit,
        DECRYPT_INIT + "00000001ffffffff" + KEY,
        [1, Mechanism(1), 2],
    ),
    (
        Call.C_Decrypt,
        "00000022000000057561796679" + SESSION + "0100000020" + X32 + "00000400",
        [1, b"x" * 32, 1024],
    ),
    (Call.C_SignInit, SIGN_INIT + "00000001ffffffff" + KEY, [1, Mechanism(1), 2]),
    (
        Call.C_SignInit,
        SIGN_INIT + "0000000d" + PSS + KEY,
        [1, Mechanism(13, (0x250, 2, 32)), 2],
    ),
    (Call.C_SignInit, SIGN_INIT + "ffffffff" + KEY, [1, CANCEL, 2]),
    (
        Call.C_Sign,
        "0000002b000000057561796679" + SESSION + "0100000020" + X32 + "00000200",
        [1, b"x" * 32, 512],
    ),
    (
        Call.C_Sign,
        "0000002b000000057561796679" + SESSION + "000000002000000200",
        [1, b"", 512],
    ),
    (
        Call.C_SignUpdate,
        "0000002c00000003756179" + SESSION + "01000000053021300906",
        [1, b"0!0\t\6"],
    ),
    (Call.C_SignFinal, "0000002d00000003756679" + SESSION + "00000400", [1, 1024]),
    (
        Call.C_DeriveKey,
        DERIVE + ECDH + KEY + DERIVED,
        [1, Mechanism(0x1050, (6, b"\xab\xcd", b"\4" * 65)), 2, (Attribute(0x161, 32),)],
    ),
    (Call.C_GenerateRandom, "0000004000000003756679" + SESSION + "00000000", [1, 0]),
    (Call.C_WaitForSlotEvent, "0000004100000001750000000000000001", [1]),
    (Call.C_SessionCancel, "00000043000000027575" + SESSION + "0000000000000800", [1, 0x800]),
]
NEW: Requests = [
    (Call.C_SignInit, SIGN_INIT + "00000001" + KEY, [1, Mechanism(1), 2]),
    (Call.C_SignInit, SIGN_INIT + "00001041" + KEY, [1, Mechanism(0x1041), 2]),
    (
        Call.C_SignInit,
        SIGN_INIT + "0000000d01" + PSS + KEY,
        [1, Mechanism(13, (0x250, 2, 32)), 2],
    ),
    (Call.C_SignInit, SIGN_INIT + "0000000d00" + KEY, [1, Mechanism(13), 2]),
    (Call.C_SignInit, SIGN_INIT + "ffffffff" + KEY, [1, CANCEL, 2]),
    (Call.C_DecryptInit, DECRYPT_INIT + "00000001" + KEY, [1, Mechanism(1), 2]),
    (
        Call.C_DecryptInit,
        DECRYPT_INIT + "0000000901" + OAEP + "00000002abcd" + KEY,
        [1, Mechanism(9, (0x250, 2, 0, b"\xab\xcd")), 2],
    ),
    (
        Call.C_DeriveKey,
        DERIVE + "01" + ECDH + KEY + DERIVED,
        [1, Mechanism(0x1050, (6, b"\xab\xcd", b"\4" * 65)), 2, (Attribute(0x161, 32),)],
    ),
    (
        Call.C_GetAttributeValue,
        GET_VALUES + "0000000240000211000000300000000100000100000000080000000300000010",
        [1, 1, (Room(0x40000211, 48), Room(3, 16))],
    ),
]
REQUESTS = OLD + NEW

GOT_THREE = (
    "00000018000000036141750000000300000180010000000300000003060107"
    "000000000100000008000000000000000300000001010000000101"
    "0000000000000000"
)
BLANKS_32 = "20" * 24
_EMPTY = (
    *(Call.C_Initialize, Call.C_Finalize, Call.C_CloseSession, Call.C_CloseAllSessions),
    *(Call.C_Login, Call.C_Logout, Call.C_DestroyObject, Call.C_FindObjectsInit),
    *(Call.C_FindObjectsFinal, Call.C_DecryptInit, Call.C_SignInit, Call.C_SignUpdate),
    Call.C_SessionCancel,
)
REPLIES: list[tuple[Call, tuple[Any, ...], str]] = [
    *((call, (), f"{call:08x}00000000") for call in _EMPTY),
    (
        Call.C_GetInfo,
        ((2, 40), b"hsmagent".ljust(32), 0, b"hsmagent".ljust(32), (0, 1)),
        "000000030000000576737573760228"
        "0000002068736d6167656e74" + BLANKS_32 + "0000000000000000"
        "0000002068736d6167656e74" + BLANKS_32 + "0001",
    ),
    (Call.C_GetSlotList, (1,), "000000040000000261750000000001"),
    (Call.C_GetSlotList, ((1,),), "0000000400000002617501000000010000000000000001"),
    (
        Call.C_GetSlotInfo,
        (b"hsmagent: work".ljust(64), b"hsmagent".ljust(32), 7, (0, 1), (0, 1)),
        "000000050000000573737576760000004068736d6167656e743a20776f726b"
        + "20" * 50
        + "0000002068736d6167656e74"
        + BLANKS_32
        + "000000000000000700010001",
    ),
    (
        Call.C_GetTokenInfo,
        (
            *(b"work".ljust(32), b"SoftHSM project".ljust(32), b"SoftHSM v2".ljust(16)),
            *(b"2159c631d5eb0601", 0x40A, 0, UNKNOWN, 0, UNKNOWN, 255, 0),
            *(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, (0, 0), (0, 0), b"".ljust(16)),
        ),
        "000000060000001273737373757575757575757575757576767300000020776f726b"
        + "20" * 28
        + "00000020536f667448534d2070726f6a656374"
        + "20" * 17
        + "00000010536f667448534d2076322020202020200000001032313539633633316435656230363031"
        "000000000000040a0000000000000000ffffffffffffffff0000000000000000"
        "ffffffffffffffff00000000000000ff0000000000000000"
        + "ff" * 32
        + "0000000000000010"
        + "20" * 16,
    ),
    (Call.C_GetMechanismList, (14,), "00000007000000026175000000000e"),
    (
        Call.C_GetMechanismInfo,
        (1024, 8192, 2561),
        "0000000800000003757575000000000000040000000000000020000000000000000a01",
    ),
    (Call.C_OpenSession, (1,), "0000000a00000001750000000000000001"),
    (
        Call.C_GetSessionInfo,
        (1, 2, 6, 0),
        "0000000d00000004757575750000000000000001000000000000000200000000000000060000000000000000",
    ),
    (
        Call.C_GetAttributeValue,
        ((Attribute(4),), 0x12),
        "00000018000000036141750000000100000004000000000000000012",
    ),
    (
        Call.C_GetAttributeValue,
        ((Attribute(0x180, b"\6\1\7"), Attribute(0, 3), Attribute(1, 1)), 0),
        GOT_THREE,
    ),
    (Call.C_FindObjects, ((),), "0000001b0000000261750100000000"),
    (
        Call.C_FindObjects,
        ((1, 2),),
        "0000001b000000026175010000000200000000000000010000000000000002",
    ),
    (Call.C_Decrypt, (b"hi",), "0000002200000002617901000000026869"),
    (Call.C_Sign, (b"hi",), "0000002b00000002617901000000026869"),
    (Call.C_Sign, (256,), "0000002b0000000261790000000100"),
    (Call.C_SignFinal, (256,), "0000002d0000000261790000000100"),
    (Call.C_DeriveKey, (2**32,), "0000003e00000001750000000100000000"),
    (Call.C_GenerateRandom, (b"",), "000000400000000261790100000000"),
    (Call.C_WaitForSlotEvent, (1,), "0000004100000001750000000000000001"),
]


def names(value: object) -> str:
    """Name a case by its call."""
    return value.name if isinstance(value, Call) else ""
