"""hsmagent: one agent for the keys in your hardware tokens, for ssh, git and mail."""

__version__ = "0.1.0"

# The manufacturer of the slots that we show to PKCS#11 programs. By this name our own workers know
# such a slot, and leave it out.
MANUFACTURER = "hsmagent"
