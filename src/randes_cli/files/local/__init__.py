"""The disks of this machine: system calls, locks, and who else works here."""
