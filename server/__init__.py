"""The coordinator: drives the study over a transport and adds what the sites answer."""
