"""Taking away what erased erasures left: versions, rows, entries, files, and bytes that no query shows."""
