"""Breaks the service in every way that is written down, and says which promise did not hold.

`make faults` runs it; `python -m tests.faults.harness --help` tells the options. From the inside out:

    world      who likes what, and a home that has learnt it
    stage      the home with real processes around it: API x2, worker x2, compactor, Valkey behind a proxy, a database
    nemesis    what goes wrong, chosen by a seed
    callers    who uses the service meanwhile, chosen by a seed; writes the history
    judging    P1 to P10 over the history and over what is there in the end
    trial      all of these together, once
    kills      kill -9 at each named point, many times
    rows       the rows A1 to F10: which trials, kills and tests stand for each
    cells      what was measured, one file each; a run that is cut off goes on
    page       docs/results/faults.json and its page
"""
