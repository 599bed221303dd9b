"""From a teacher's text to a data set: parsing, filters, de-duplication and selection as pure functions.

Nothing here reads files, asks a teacher or keeps state between calls (the de-duplication index holds only what it was
given), so sample and curate apply the same rules and a changed rule is re-applied to old completions for free.
"""
