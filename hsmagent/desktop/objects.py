"""Our objects on the bus: methods, read-only properties, introspection.

The XML files beside this one say what the objects can do, for introspection; the tests compare the
code with them.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsmagent.bus import PROPERTIES, BusError, Message, Variant, errors

INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"

_FOLDER = "<node>\n</node>\n"

Reply = tuple[str, Sequence[Any]]
Method = Callable[[Message], Awaitable[Reply]]
Values = dict[str, Variant]


@dataclass(frozen=True, slots=True)
class BusObject:
    """One object on the bus: its methods, properties and children.

    methods: by (interface, member); none takes arguments. properties: the values now, by
    interface. xml: the name of its introspection file, "" for a mere folder. children: the names
    of the objects right below it.
    """

    methods: Mapping[tuple[str, str], Method] = field(default_factory=dict)
    properties: Callable[[], Mapping[str, Values]] = dict
    xml: str = ""
    children: Callable[[], Sequence[str]] = tuple

    async def answer(self, call: Message) -> Reply:
        """Answer a call of this object; the handler to export. Raises BusError."""
        if call.interface == PROPERTIES:
            return self._answer_about_properties(call)
        if (call.interface, call.member) == (INTROSPECTABLE, "Introspect"):
            return "s", [self._introspect()]
        method = self.methods.get((call.interface, call.member))
        if method is None:
            raise BusError(errors.UNKNOWN_METHOD, f"there is no {call.interface}.{call.member}")
        if call.signature:
            raise BusError(errors.INVALID_ARGS, f"{call.member} takes no arguments")
        return await method(call)

    def _answer_about_properties(self, call: Message) -> Reply:
        match call.member, call.signature, call.body:
            case "Get", "ss", [interface, name]:
                values = self._of(interface)
                if name not in values:
                    raise BusError(errors.UNKNOWN_PROPERTY, f"{interface} has no property {name}")
                return "v", [values[name]]
            case "GetAll", "s", [interface]:
                return "a{sv}", [self._of(interface)]
            case "Set", "ssv", _:
                raise BusError(errors.PROPERTY_READ_ONLY, "the properties can only be read")
        raise BusError(errors.INVALID_ARGS, f"not a call of {PROPERTIES}")

    def _of(self, interface: str) -> Values:
        values = self.properties().get(interface)
        if values is None:
            raise BusError(errors.UNKNOWN_INTERFACE, f"there is no interface {interface} here")
        return values

    def _introspect(self) -> str:
        own, standard = (_read(self.xml), _read("standard.xml")) if self.xml else (_FOLDER, _FOLDER)
        interfaces = standard.partition("<node>")[2].rpartition("</node>")[0]
        nodes = "".join(f'  <node name="{name}"/>\n' for name in self.children())
        return own.replace("\n</node>", f"{interfaces}{nodes}</node>")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
