"""HTTP: requests become calls of the request service, results and errors become JSON answers."""
