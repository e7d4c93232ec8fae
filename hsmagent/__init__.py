"""hsmagent: one agent for the keys in your hardware tokens, for ssh, git and mail."""

__version__ = "0.1.0"
