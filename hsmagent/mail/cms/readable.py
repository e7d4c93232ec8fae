"""A certificate as the path validation reads it.

asn1crypto reads a certificate whole or not at all. Some hold URIs, X.400 names and other things
that asn1crypto cannot read and that nobody here looks at. `Readable` leaves those alone.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
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
                value = _or_none(attrgetter("parsed"), extension["extn_value"])
                setattr(self, f"_{name}_value", value)
            elif name == "subject_alt_name":
                every = fields.alternative_names(bytes(extension["extn_value"]))
                names = (_or_none(_general_name, data) for data in every)
                self._subject_alt_name_value = x509.GeneralNames([name for name in names if name])
        self._processed_extensions = True


_general_name = partial(x509.GeneralName.load, strict=True)


def _or_none(read: Callable[[Any], Any], value: Any) -> Any:
    """Return what `read` makes of a value; None if it cannot be read."""
    try:
        found = read(value)
        _ = found.native
    except ASN1_ERRORS:
        return None
    return found
