"""One visit to a GPU: parts in the order of their worth, each in a process of its own with a time limit.

The modules that every part needs import the standard library only: the project's packages may have to be unpacked
first.
"""
