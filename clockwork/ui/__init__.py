"""The dashboard's page: files that a browser runs as they are. `clockwork.http.ui` serves them."""
