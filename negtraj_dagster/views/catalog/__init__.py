"""The catalogue: every table of a home as views of one DuckDB file."""
