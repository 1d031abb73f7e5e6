"""Several live servers as one fleet: all get a new version, or all go back.

`plans` says which configs a change consists of, and `rules` how it goes through the fleet. `switch` carries it out:
the `steps` of each server, made of the waits of `live`, are taken on all servers at once by `parallel`; in `stages`,
each with a verdict of `verdicts`. `failures` names what can go wrong, and `going_back` puts everything back. `hooks`
runs the user's own commands. Lagging servers are remembered in `repository/lagging.py`.
"""
