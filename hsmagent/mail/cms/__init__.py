"""Cryptographic Message Syntax (RFC 5652): what S/MIME puts around a MIME entity."""
