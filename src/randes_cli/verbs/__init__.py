"""The verbs of the command line as functions: each takes paths and options, returns a record.

A bank is named by its path or, where it is only read, by its Hub id (``org/name@rev``). Nothing
here prints. `run` says how a job runs (threads, memory, device), never what comes out.
"""
