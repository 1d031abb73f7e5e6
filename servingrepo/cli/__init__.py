"""The command line: thin adapters over the Python API, one module per command.

The only room that prints, prompts or reads the environment.
"""
