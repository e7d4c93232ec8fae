"""Tokens: one worker process per PKCS#11 module, and the login sessions."""
