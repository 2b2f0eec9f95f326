"""What a build would make and what is said of it: sizes, dry runs, warnings, the report."""
