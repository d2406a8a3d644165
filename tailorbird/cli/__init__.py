"""The command line: thin shells over the workbench. Nothing heavy is imported before a command needs it."""
