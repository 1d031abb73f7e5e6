"""Files and trees on a local file system: read, copy, hash, publish, replace and lock them, durably.

This room does not know models or servers. Every write goes through a `Disk`, whose steps are the failpoints of the
crash tests.
"""
