"""NetHack, played by many agents at once."""
