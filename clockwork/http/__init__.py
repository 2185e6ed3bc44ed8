"""The HTTP edge: what clients send becomes values of the domain, answers and errors become JSON. No adapters here."""
