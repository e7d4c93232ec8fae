"""The control socket: both ends of its protocol, and what can be asked there."""
