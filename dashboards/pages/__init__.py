"""The pages. Each module has PATH, NAME, `layout(study, query)`, `known(study, query)` and `register(app, study)`.

The address holds the selection: a click changes the address, and everything on a page follows from it.
"""
