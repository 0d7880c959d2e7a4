"""One self-contained HTML page per run: files -> facts (``run_files``) -> words and drawings -> sections -> page."""
