"""The private-key operations that wait for a worker, in the order in which they came.

A worker has only a few of them at a time: enough that it never idles, few enough that little is
lost when it dies.
"""

from collections import deque
from collections.abc import Callable, Sequence

from hsmagent.errors import TokenError
from hsmagent.token.member import Call, Member
from hsmagent.worker.messages import Operate

# Requests that one worker has at most: while the daemon checks a signature, the next is made.
DEPTH = 4


class Queue:
    """The calls that wait for these members. nobody_for: the error for one that none can take."""

    def __init__(self, members: Sequence[Member], nobody_for: Callable[[Call], TokenError]) -> None:
        self._members = members
        self._nobody_for = nobody_for
        self._waiting: deque[Call] = deque()

    def add(self, call: Call) -> None:
        """Take in a call, and dispatch."""
        self._waiting.append(call)
        self.dispatch()

    def dispatch(self) -> None:
        """Hand the waiting calls to the workers, oldest first, as far as these have room."""
        queue = self._waiting
        while queue:
            call = queue[0]
            if call.reply.done():  # its caller gave up
                queue.popleft()
                continue
            able, depth, link, at = False, DEPTH, None, 0
            for member in self._members:
                slot = member.slot_for(call)
                if slot is None or member.link is None:
                    continue
                able = True
                if (here := member.link.depth) < depth:
                    call.member, link, at, depth = member, member.link, slot, here
            if link is not None:
                queue.popleft()
                link.submit(Operate(at, call.use, call.data, call.pin), call.seconds, call.reply)
            elif able:
                return
            else:
                queue.popleft()
                call.reply.set_exception(self._nobody_for(call))
