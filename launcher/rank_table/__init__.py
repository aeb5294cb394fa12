"""Decide which rank runs on which device: an HCCL rank table of any format, or simulated ranks.

The JSON keys are known here and nowhere else. HCCL writes numbers as strings, or in version 2.0 as
numbers; they become ints here and stay ints.
"""
