"""What a worker does with a request for a key that has signed before."""

import sys
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from hsmagent.frame import HEADER
from hsmagent.worker import codec, main, spec
from hsmagent.worker.cryptoki import ModuleError
from hsmagent.worker.messages import Action, Done, Failed, KeyUse, Operate

USE = KeyUse(Action.SIGN, 3, 0x1041, b"\x05", b"l")
OTHER = KeyUse(Action.SIGN, 3, 0x1041, b"\x06", b"l")
MOST_CALLS = 6


def body(use: KeyUse, pin: bytearray | None = None) -> bytearray:
    return codec.encode(Operate(7, use, b"digest", pin))[HEADER:]


def module(**more: Any) -> Any:
    """Return a module whose key USE has signed before; an ordinary operation is told apart."""
    known = {codec.operation_head(7, USE): lambda data, _pin: b"again " + data}
    return SimpleNamespace(signings=known, operate=lambda message: b"new " + message.data, **more)


@pytest.mark.parametrize(
    ("request_body", "value"),
    [
        (body(USE), b"again digest"),
        (body(OTHER), b"new digest"),
        (body(USE, bytearray(b"1234")), b"new digest"),
    ],
)
def test_only_a_key_that_has_signed_before_does_so_quickly(
    request_body: bytearray, value: bytes
) -> None:
    assert main.with_a_module(module(), request_body) == codec.encode(Done(value))


def test_a_failure_is_told_as_in_the_ordinary_way() -> None:
    def sign(_data: bytes, _pin: None) -> bytes:
        raise ModuleError(spec.CKR_DEVICE_REMOVED, "C_Sign")

    def failed(slot: int, action: Action, error: ModuleError) -> ModuleError:
        assert (slot, action) == (7, Action.SIGN)
        error.login_lost = True
        return error

    broken = module(failed=failed)
    broken.signings = dict.fromkeys(broken.signings, sign)
    told = Failed(spec.CKR_DEVICE_REMOVED, "C_Sign", login_lost=True)
    assert main.with_a_module(broken, body(USE)) == codec.encode(told)


def test_to_sign_again_takes_few_calls() -> None:
    calls = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    ours, asked = module(), body(USE)
    sys.setprofile(note)
    try:
        main.with_a_module(ours, asked)
    finally:
        sys.setprofile(None)
    assert calls <= MOST_CALLS
