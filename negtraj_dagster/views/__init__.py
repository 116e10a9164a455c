"""What people look at, above the stages that make it: pages, `negtraj why`, `diff`, `try`, `list`, the catalogue."""
