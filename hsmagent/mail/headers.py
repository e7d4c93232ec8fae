"""Header fields that are signed or encrypted together with the body (RFC 9788, and older ways).

They stand in the header of the content itself, or in that of a message/rfc822 which is all of the
content (RFC 8551, section 3.1).
"""

from hsmagent.errors import UsageError
from hsmagent.mail import mime
from hsmagent.mail.mime import Entity, Field
from hsmagent.model import printable

_SHOWN = 40
# "X-HSMAgent: sign, encrypt" asks for either, "unsigned" for neither; it never leaves.
REQUEST = "x-hsmagent"
# Fields that say where a message came from, that a reader's answer goes by, or that make a program
# act: the delivered ones stay, whatever the author wrote inside.
_DELIVERED = frozenset(
    {
        *("from", "sender", "reply-to", "mail-reply-to", "mail-followup-to"),
        *("return-path", "received", "delivered-to", "authentication-results"),
        *("bcc", REQUEST),
    }
)
_DELIVERED_GROUP = "resent-"


def is_content(field: Field) -> bool:
    """Tell whether a field describes the content."""
    return field.name.startswith("content-") or field.name == "mime-version"


def inside(content: Entity) -> tuple[Field, ...]:
    """Return the fields of a content's header that do not describe the content."""
    return tuple(f for f in content.fields if not is_content(f) and f.name != "hp-outer")


def are_meant(content: Entity) -> bool:
    """Tell whether the content says that its fields are those of the message."""
    kind = content.content_type
    return bool(kind.get("hp") or kind.get("protected-headers"))


def protected(content: Entity) -> tuple[tuple[str, str], ...]:
    """Return name and value of the fields inside; Malformed when the content cannot be read."""
    fields = inside(content)
    if (
        not fields
        and content.content_type.kind == "message/rfc822"
        and content.encoding != "base64"
    ):
        fields = inside(mime.read(content.body))
    return tuple(
        (printable(field.raw.partition(b":")[0].decode("ascii").strip()), field.value)
        for field in fields[:_SHOWN]
    )


def restored(outer: tuple[Field, ...], content: Entity) -> tuple[Field, ...]:
    """Return the fields of a message, those that its content protects in place of its own.

    The delivered senders stay, since a signature is compared with them. So do the fields that would
    send the message on (Bcc, Resent-*), or ask a program for something.
    """
    if not are_meant(content):
        return outer
    given = [field for field in inside(content) if not _is_delivered(field)]
    names = {field.name for field in given}
    return (*(field for field in outer if field.name not in names), *given)


def _is_delivered(field: Field) -> bool:
    return field.name in _DELIVERED or field.name.startswith(_DELIVERED_GROUP)


def differences(outer: Entity, fields: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return a sentence for each protected field that differs from the message's own."""
    found: list[str] = []
    for name, value in fields:
        try:
            there = outer.one(name.lower())
        except UsageError:
            continue
        if there and there != value:
            found.append(f"the {name} outside is another one: {printable(there, 200)}")
    return tuple(found)
