"""Which S/MIME layer an entity is (RFC 8551, section 3), and the CMS message inside it."""

from dataclasses import dataclass

from hsmagent.mail import base64_view, canonical, mime, multipart
from hsmagent.mail.cms import oids
from hsmagent.mail.cms.ber import Malformed
from hsmagent.mail.cms.parse import open_content
from hsmagent.mail.mime import Entity
from hsmagent.mail.spool import Region, Source, Spool

MAX_LAYERS = 6
_SIGNATURE = {"application/pkcs7-signature", "application/x-pkcs7-signature"}
_MIME = {"application/pkcs7-mime", "application/x-pkcs7-mime"}
_ENCRYPTED = {oids.ID_ENVELOPED_DATA, oids.ID_CT_AUTH_ENVELOPED_DATA}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. kind: the CMS content type (an OID); part: what a detached signature covers."""

    kind: str
    cms: Source
    part: Region | None = None

    @property
    def is_signed(self) -> bool:
        """SignedData, detached or opaque."""
        return self.kind == oids.ID_SIGNED_DATA

    @property
    def is_encrypted(self) -> bool:
        """EnvelopedData or AuthEnvelopedData."""
        return self.kind in _ENCRYPTED


def find(entity: Entity, *, secret: bool = False) -> Layer | None:
    """Return the S/MIME layer that this entity is, or None. The CMS tells its kind, not the header.

    secret: the entity was encrypted, and must not be written to a disk in the clear.
    """
    kind = entity.content_type
    if kind.kind == "multipart/signed":
        if kind.get("protocol").lower() not in _SIGNATURE:
            return None
        parts = multipart.parts(entity)
        if len(parts) != 2:  # noqa: PLR2004 (RFC 1847, section 2.1)
            raise Malformed(f"a multipart/signed with {len(parts)} parts")
        signature = mime.read(parts[1])
        if signature.content_type.kind not in _SIGNATURE:
            raise Malformed("a multipart/signed whose second part is not its signature")
        cms = decoded(signature, sealed=secret)
        return Layer(open_content(cms)[0], cms, parts[0])
    octets = kind.kind == "application/octet-stream"
    if kind.kind in _MIME or (octets and _name(entity).lower().endswith(".p7m")):
        cms = decoded(entity, sealed=secret)
        return Layer(open_content(cms)[0], cms)
    return None


def decoded(entity: Entity, *, sealed: bool) -> Source:
    """Return the entity's body with its transfer encoding taken off."""
    if entity.encoding == "base64" and (view := base64_view.over(entity.body)) is not None:
        return view
    chunks = entity.body.chunks()
    if entity.encoding == "base64":
        chunks = canonical.from_base64(chunks, "the S/MIME part")
    elif entity.encoding not in {"binary", "8bit", "7bit"}:
        raise Malformed(f"an S/MIME part in the encoding {entity.encoding[:40]!r}")
    spool = Spool(sealed=sealed)
    spool.writelines(chunks)
    return spool


def _name(entity: Entity) -> str:
    disposition = entity.one("content-disposition")
    named = mime.content_type(disposition).get("filename") if disposition else ""
    return named or entity.content_type.get("name")
