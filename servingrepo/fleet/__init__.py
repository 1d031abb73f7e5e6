"""Several live servers as one fleet: all get a new version, or all go back.

`plans` says which configs a change consists of, `rules` how it goes through the fleet. `switch` carries it out:
`steps` on each server, made of the waits of `live`, taken on all servers at once by `parallel`; in `stages`, each with
a verdict of `verdicts`. `failures` names what can go wrong, `going_back` puts everything back. `hooks` runs the user's
own commands. Lagging servers are remembered by `repository/lagging.py`.
"""
