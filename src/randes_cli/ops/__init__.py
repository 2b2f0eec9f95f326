"""The verbs: each joins core and files, returns a report, and never prints."""
