"""Every program and command: arguments in, exit status out."""
