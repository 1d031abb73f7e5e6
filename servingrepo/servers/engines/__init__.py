"""Engines: each starts a server and gives it the files of a version."""
