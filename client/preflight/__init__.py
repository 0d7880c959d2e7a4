"""What ``check`` looks at before a hospital joins: one file for each kind of thing that can be wrong."""
