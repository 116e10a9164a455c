"""The commands of `negtraj`, one file each: `add_parser` states its arguments, and what is set as `run` does it.

Heavy imports stand inside of functions: `negtraj --help` pays for none of them.
"""
