"""Raw tables as files: found out what they are, streamed, and typed; what cannot be read is counted."""
