"""A certificate as the path validation reads it.

asn1crypto reads a certificate whole or not at all. Some hold URIs, X.400 names and other things
that asn1crypto cannot read and that nobody here looks at. `Readable` leaves those alone.
"""

from typing import Any

from asn1crypto import x509

from hsmagent.mail.cms import fields
from hsmagent.mail.cms.ber import ASN1_ERRORS

# The extensions that we, or the path validation, look at.
_USED = frozenset(
    {
        "key_identifier",
        "key_usage",
        "basic_constraints",
        "name_constraints",
        "certificate_policies",
        "policy_mappings",
        "policy_constraints",
        "inhibit_any_policy",
        "authority_key_identifier",
        "extended_key_usage",
    }
)
_USED_IF_READABLE = frozenset({"crl_distribution_points", "freshest_crl"})


class Readable(x509.Certificate):  # type: ignore[misc]
    """A certificate of which only those extensions are read that are used.

    An extension that is used and stands there twice makes it unreadable (RFC 5280, section 4.2).
    """

    def _set_extensions(self) -> None:
        self._critical_extensions: set[str] = set()
        seen: set[str] = set()
        for extension in self["tbs_certificate"]["extensions"]:
            name = extension["extn_id"].native
            if name in seen:
                raise ValueError(f"it has the extension {name} twice")
            seen.add(name)
            if extension["critical"].native:
                self._critical_extensions.add(name)
            if name in _USED:
                setattr(self, f"_{name}_value", extension["extn_value"].parsed)
            elif name in _USED_IF_READABLE:
                setattr(self, f"_{name}_value", _or_none(extension["extn_value"]))
            elif name == "subject_alt_name":
                every = fields.alternative_names(bytes(extension["extn_value"]))
                readable = [one for one in map(_general_name, every) if one]
                self._subject_alt_name_value = x509.GeneralNames(readable)
        self._processed_extensions = True


def _or_none(value: Any) -> Any:
    try:
        found = value.parsed
        _ = found.native
    except ASN1_ERRORS:
        return None
    return found


def _general_name(data: bytes) -> Any:
    try:
        found = x509.GeneralName.load(data, strict=True)
        _ = found.native
    except ASN1_ERRORS:
        return None
    return found
