"""NumPy's own functions, methods and protocols on traced arrays, in terms of the traced namespace."""
