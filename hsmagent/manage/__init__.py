"""What `hsmagent token`, `key`, `cert` do: in a process of its own, with workers of its own.

The daemon has no part in it but to let go of the token before, and to look anew after. Each command
keeps one order: read without a PIN, refuse what would fail, say what will be lost, ask whether,
ask for the PIN, act, read back, say what came of it.
"""
