"""The figures of the book: one function a figure, from labelled arrays to an accessible picture."""
