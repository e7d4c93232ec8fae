"""What can go wrong on the bus, by D-Bus error name."""

from hsmagent.errors import HsmAgentError

_ERROR = "org.freedesktop.DBus.Error."
ACCESS_DENIED = _ERROR + "AccessDenied"
DISCONNECTED = _ERROR + "Disconnected"
FAILED = _ERROR + "Failed"
INVALID_ARGS = _ERROR + "InvalidArgs"
LIMITS_EXCEEDED = _ERROR + "LimitsExceeded"
NAME_HAS_NO_OWNER = _ERROR + "NameHasNoOwner"
NO_REPLY = _ERROR + "NoReply"
PROPERTY_READ_ONLY = _ERROR + "PropertyReadOnly"
UNKNOWN_INTERFACE = _ERROR + "UnknownInterface"
UNKNOWN_METHOD = _ERROR + "UnknownMethod"
UNKNOWN_OBJECT = _ERROR + "UnknownObject"
UNKNOWN_PROPERTY = _ERROR + "UnknownProperty"


class BusError(HsmAgentError):
    """A call failed, or a handler refuses one. `name` is the D-Bus error name.

    DISCONNECTED: there is no bus, or it died meanwhile; NO_REPLY: the deadline passed.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
