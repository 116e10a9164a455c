"""How `negtraj` ends, for scripts and CI. docs/commands.md has the table; every code has a test."""

SUCCESS = 0
FAILED = 1
"""A run failed, or something is wrong that a message names: a file, a setting, a home."""
USAGE = 2
"""The command line itself: a missing name, options that exclude each other. argparse ends so, too."""
STALE = 3
"""`negtraj plan --check`: something would be recomputed."""
CHECK_FAILED = 4
"""`negtraj run --strict-checks`: everything ran, and a check that blocks nothing failed."""
INTERRUPTED = 130
"""Ctrl-C or SIGTERM."""
CLOSED_PIPE = 141
"""Whoever read the output, `| head`, closed it before the command knew how it ends; 128 + SIGPIPE, as a shell would say."""
