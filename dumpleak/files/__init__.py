"""Files that stand in place of a dump: snapshot files of ours, and logs of other tools.

Nothing in them is trusted. `detect.py` tells them apart; to add one, give it a file with `detect` and `read`
and a row in `SNAPSHOT_READERS` there.
"""
