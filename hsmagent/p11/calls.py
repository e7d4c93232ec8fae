"""The calls of p11-kit's RPC: number, name, and the signatures of request and reply.

As in p11-kit's rpc-message.h. Versions 0 and 1 of the protocol end with the calls 65 and 89. A call
that is not in here is answered with CKR_FUNCTION_NOT_SUPPORTED.
"""

from enum import IntEnum

ERROR = 0
ERROR_SIGNATURE = "u"


class Call(IntEnum):
    """The calls that we answer, by their numbers."""

    C_Initialize = 1
    C_Finalize = 2
    C_GetInfo = 3
    C_GetSlotList = 4
    C_GetSlotInfo = 5
    C_GetTokenInfo = 6
    C_GetMechanismList = 7
    C_GetMechanismInfo = 8
    C_OpenSession = 10
    C_CloseSession = 11
    C_CloseAllSessions = 12
    C_GetSessionInfo = 13
    C_Login = 18
    C_Logout = 19
    C_DestroyObject = 22
    C_GetAttributeValue = 24
    C_FindObjectsInit = 26
    C_FindObjects = 27
    C_FindObjectsFinal = 28
    C_DecryptInit = 33
    C_Decrypt = 34
    C_SignInit = 42
    C_Sign = 43
    C_SignUpdate = 44
    C_SignFinal = 45
    C_DeriveKey = 62
    C_GenerateRandom = 64
    C_WaitForSlotEvent = 65
    C_SessionCancel = 67


# y: a byte. u: a number. v: a version. s: padded text. fy, fu, fA: room for bytes, numbers or
# attributes. ay, au, aA: these themselves. M: a mechanism.
SIGNATURES: dict[Call, tuple[str, str]] = {
    Call.C_Initialize: ("ayyay", ""),
    Call.C_Finalize: ("", ""),
    Call.C_GetInfo: ("", "vsusv"),
    Call.C_GetSlotList: ("yfu", "au"),
    Call.C_GetSlotInfo: ("u", "ssuvv"),
    Call.C_GetTokenInfo: ("u", "ssssuuuuuuuuuuuvvs"),
    Call.C_GetMechanismList: ("ufu", "au"),
    Call.C_GetMechanismInfo: ("uu", "uuu"),
    Call.C_OpenSession: ("uu", "u"),
    Call.C_CloseSession: ("u", ""),
    Call.C_CloseAllSessions: ("u", ""),
    Call.C_GetSessionInfo: ("u", "uuuu"),
    Call.C_Login: ("uuay", ""),
    Call.C_Logout: ("u", ""),
    Call.C_DestroyObject: ("uu", ""),
    Call.C_GetAttributeValue: ("uufA", "aAu"),
    Call.C_FindObjectsInit: ("uaA", ""),
    Call.C_FindObjects: ("ufu", "au"),
    Call.C_FindObjectsFinal: ("u", ""),
    Call.C_DecryptInit: ("uMu", ""),
    Call.C_Decrypt: ("uayfy", "ay"),
    Call.C_SignInit: ("uMu", ""),
    Call.C_Sign: ("uayfy", "ay"),
    Call.C_SignUpdate: ("uay", ""),
    Call.C_SignFinal: ("ufy", "ay"),
    Call.C_DeriveKey: ("uMuaA", "u"),
    Call.C_GenerateRandom: ("ufy", "ay"),
    Call.C_WaitForSlotEvent: ("u", "u"),
    Call.C_SessionCancel: ("uu", ""),
}
