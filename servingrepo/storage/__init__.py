"""Trees of files on a local file system: read, stage, publish, replace and lock, durably.

This room knows nothing of models or servers. Every write goes through a `Disk`, whose steps are the
failpoints that the crash tests drive. Remote trees come later, behind the same functions.
"""
