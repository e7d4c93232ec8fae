"""How a person is asked: one small protocol, several prompters, and the chain that picks one."""
