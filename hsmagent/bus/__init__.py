"""D-Bus for the daemon: one connection that may die at any time without the rest noticing.

    bus = Bus(lambda: session_address(os.environ))
    task = asyncio.create_task(bus.run())       # connects, and rejoins with back-off, for ever

    body = await bus.call(destination, path, interface, member, "su", [name, 0], returns="u")
    value = await bus.get(destination, path, interface, property)
    body = await bus.call_bus("NameHasOwner", "s", [name], "b")     # a method of the bus itself
    undo = bus.export(path, handler)            # async handler(Message) -> (signature, body)
    undo = await bus.watch_owner(name, told)    # told(owner): now, and at every change; "" = none
    undo = await bus.subscribe(Match(…), told)  # told(Message), only from the sender that is named
    ours = await bus.request_name(name)
    bus.emit(path, interface, member, "s", [text])
    undo = bus.listen(told)                     # told() when `bus.connected` changed

Exports, watches, subscriptions and names are remembered and renewed at every rejoin; each `undo`
is a plain function that forgets one. Everything foreign has a deadline, nothing blocks the loop,
and whatever a peer sends costs at most its own message. Errors are BusError with the D-Bus error
name.

Bodies that arrive are plain values: variants are unwrapped, however often they were wrapped;
structs are lists. Bodies that leave name a variant's type: `Variant("s", "text")`. A descriptor
("h" at the top level of a reply) is the caller's own, close-on-exec.
"""

from hsmagent.bus.address import session_address, system_address
from hsmagent.bus.bus import Bus, quietly
from hsmagent.bus.calls import PROPERTIES
from hsmagent.bus.codec import Message, Variant
from hsmagent.bus.errors import BusError
from hsmagent.bus.exports import Handler, Undo
from hsmagent.bus.signals import Match

__all__ = [
    "PROPERTIES",
    "Bus",
    "BusError",
    "Handler",
    "Match",
    "Message",
    "Undo",
    "Variant",
    "quietly",
    "session_address",
    "system_address",
]
