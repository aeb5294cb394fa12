"""Read the slices that one layout of ranks saved into the slices that another layout wants.

Pure Python and NumPy; usable without the rest of the project, and imports nothing of it.
In the order in which data flows: ``strategy_file`` and ``checkpoint_file`` parse,
``checkpoint`` puts the files of all ranks together and checks them, ``plan`` decides which
bytes go where, ``execute`` copies them. ``layout`` and ``region`` are the arithmetic below.
"""
