"""Ranks of one job on several hosts, or in slots of mpirun or srun: one launcher leads.

The launcher that leads is the *head*: it collects, supervises and decides. The others are
*members*: each starts the ranks that the head asks it to start on its host, and ends with the job.
"""
