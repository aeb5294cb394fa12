"""Simulated ranks: execute MindSpore's parallel program on CPU processes.

``capture`` turns a network into a MindIR graph, ``graph`` reads it, ``rules`` say how each
operator may be divided, ``strategy`` and ``partition`` divide the whole program, ``execute``
runs one rank's part of it and ``collectives`` moves data between the ranks.
"""
