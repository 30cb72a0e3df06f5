"""sv_ssl: speaker verification from unlabelled speech."""
