"""The configuration: the file, read strictly, and which modules to load when it names none."""
