"""A system prompter that follows a script: for hangs, crashes, lies and late answers.

Its side of sx-aes-1 is written from the description, independently of ours, so that it tests ours.
"""

import asyncio
import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

from hsmagent.bus import Bus, BusError, Message, Variant, errors
from hsmagent.prompt.sx_aes import PRIME
from hsmagent.prompt.system import CALLBACK, NAME, PATH

# What the fake may do when a prompt is performed, beside answering with a PIN.
NO = "no"  # the person closes the dialog
HANG = "hang"  # nothing comes
GARBAGE = "garbage"  # a "yes" whose exchange is nonsense
ANOTHER_KEY = "another-key"  # a "yes" under a key that is not the conversation's
REFUSE = "refuse"  # the call fails
MUTE = "mute"  # the call itself is not answered
LEAVE = "leave"  # its name and connection go away


class PeerExchange:
    """The prompter's side of sx-aes-1."""

    def __init__(self, exponent: int = 0) -> None:
        self.exponent = exponent or int.from_bytes(os.urandom(24), "big")

    @property
    def public(self) -> str:
        number = pow(2, self.exponent, PRIME)
        return base64.b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).decode()

    @property
    def greeting(self) -> str:
        return f"[sx-aes-1]\npublic={self.public}\n"

    def seal(self, secret: bytes, client: str, *, padded: bool = False) -> str:
        """Seal for a client's message; `padded` as gcr from 4.3 on does it."""
        lines = dict(line.split("=", 1) for line in client.splitlines()[1:])
        public = int.from_bytes(base64.b64decode(lines["public"]), "big")
        shared = pow(public, self.exponent, PRIME).to_bytes(192, "big")
        key = HKDF(SHA256(), 16, None, b"").derive(shared if padded else shared.lstrip(b"\0"))
        iv = os.urandom(16)
        padder, encryptor = PKCS7(128).padder(), Cipher(AES(key), CBC(iv)).encryptor()
        sealed = encryptor.update(padder.update(secret) + padder.finalize())
        fields = {"secret": sealed, "iv": iv}
        values = [f"{name}={base64.b64encode(value).decode()}" for name, value in fields.items()]
        return self.greeting + "\n".join([*values, ""])


@dataclass
class FakePrompter:
    """Serves one conversation after another, by `script`: one entry per PerformPrompt.

    turn: whether it gives anybody the turn. wrap: how its property values are wrapped.
    """

    bus: Bus
    script: list[str | bytes]
    turn: bool = True
    shown: list[dict[str, Any]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    callbacks: list[tuple[str, str]] = field(default_factory=list)
    exchange: PeerExchange = field(default_factory=PeerExchange)
    said: str = ""

    async def serve(self) -> None:
        self.bus.export(PATH, self.handle)
        assert await self.bus.request_name(NAME)

    async def handle(self, call: Message) -> tuple[str, Sequence[Any]]:
        path = call.body[0]
        match call.member:
            case "BeginPrompting":
                self.callbacks.append((call.sender, path))
                if self.turn:
                    self.bus._spawn(self.ready(call.sender, path, "", self.exchange.greeting))
            case "PerformPrompt":
                _, kind, properties, exchange = call.body
                self.kinds.append(kind)
                self.shown.append(properties)
                await self.perform(call.sender, path, self.script.pop(0), exchange)
            case "StopPrompting":
                self.stopped.append(path)
                self.bus._spawn(self.done(call.sender, path))
        return "", []

    async def perform(self, client: str, path: str, act: str | bytes, exchange: str) -> None:
        match act:
            case bytes():
                self.said = self.exchange.seal(act, exchange)
                self.bus._spawn(self.ready(client, path, "yes", self.said))
            case "no":
                self.bus._spawn(self.say_no(client, path))
            case "garbage":
                self.bus._spawn(self.ready(client, path, "yes", "[sx-aes-1]\nsecret=%%%\n"))
            case "another-key":
                sealed = PeerExchange().seal(b"1234", exchange)
                self.bus._spawn(self.ready(client, path, "yes", sealed))
            case "refuse":
                raise BusError(errors.FAILED, "not begun prompting")
            case "mute":
                await asyncio.Event().wait()
            case "leave":
                assert self.bus._connection is not None
                self.bus._leave("told to")

    async def ready(self, client: str, path: str, reply: str, exchange: str) -> None:
        wrapped = {"choice-chosen": Variant("v", Variant("b", False))}  # noqa: FBT003
        body = [reply, wrapped, exchange]
        await self.bus.call(client, path, CALLBACK, "PromptReady", "sa{sv}s", body, returns="")

    async def done(self, client: str, path: str) -> None:
        await self.bus.call(client, path, CALLBACK, "PromptDone", returns="")

    async def say_no(self, client: str, path: str) -> None:
        await self.ready(client, path, "no", self.exchange.greeting)
        await self.done(client, path)
