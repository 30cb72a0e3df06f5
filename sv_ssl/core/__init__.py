"""What all rooms may use: errors, files, progress, processes."""
