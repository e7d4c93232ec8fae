"""What is called the signature of a mail, and what only looks like one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from asn1crypto import cms
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.control.signed_attributes import is_signed_attributes
from hsmagent.mail.cms import der, oids
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.cms.signed import attributes
from hsmagent.model import Scheme
from tests.parts.mail.peers import OpenSsl
from tests.parts.mail.people import person, root

TYPE = der.sequence(der.oid(oids.ID_CONTENT_TYPE), der.set_of(der.oid("1.2.840.113549.1.7.1")))
DIGEST = der.sequence(der.oid(oids.ID_MESSAGE_DIGEST), der.set_of(der.octets(bytes(32))))
LONG = der.sequence(der.oid("1.2.3"), der.set_of(der.octets(bytes(70_000))))


def test_ours_and_those_of_openssl_are(tmp_path: Path) -> None:
    who = person("p256")
    ours = attributes(bytes(32), Scheme.ECDSA_SHA256, Certificate(who.der), datetime.now(UTC))
    assert is_signed_attributes(ours)
    signed = OpenSsl(tmp_path, root(), {"rsa": person("rsa")}).sign(b"x", "rsa", detached=True)
    [info] = cms.ContentInfo.load(signed)["content"]["signer_infos"]
    assert is_signed_attributes(info["signed_attrs"].untag().dump())
    assert is_signed_attributes(der.set_of(TYPE, DIGEST))
    assert is_signed_attributes(der.set_of(LONG, DIGEST, TYPE))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"a message",
        der.set_of(),
        der.set_of(TYPE),
        der.set_of(DIGEST),
        der.set_of(TYPE, DIGEST, DIGEST),
        der.sequence(TYPE, DIGEST),
        der.set_of(TYPE, DIGEST) + b"\0",
        der.set_of(TYPE, DIGEST)[:-1],
        der.set_of(TYPE, DIGEST, b"text"),
        der.set_of(TYPE, DIGEST, der.sequence()),
        der.set_of(TYPE, DIGEST, der.octets(b"ssh-userauth")),
        der.set_of(TYPE, der.sequence(der.oid(oids.ID_MESSAGE_DIGEST), der.octets(b""))),
        der.set_of(der.set_of(TYPE, DIGEST)),
        b"\x31\x80" + TYPE + DIGEST + b"\0\0",
        b"\x31\x81" + der.set_of(TYPE, DIGEST)[1:],
        b"\x31\x82\0" + der.set_of(TYPE, DIGEST)[1:],
    ],
)
def test_what_is_not_one_der_set_of_attributes_is_not(message: bytes) -> None:
    assert not is_signed_attributes(message)


@given(st.binary(max_size=80), st.integers(0, 100))
def test_nothing_confuses_it(noise: bytes, at: int) -> None:
    good = der.set_of(TYPE, DIGEST)
    is_signed_attributes(noise)
    is_signed_attributes(b"\x31" + noise)
    is_signed_attributes(good[:at] + noise + good[at:])
