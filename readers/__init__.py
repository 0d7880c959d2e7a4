"""Readers of what hospitals store: tables as csv or parquet, ECGs as WFDB records. They know no site and no study."""
