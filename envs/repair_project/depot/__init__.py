"""Depot: codes, shelf places, movements and ways of a warehouse."""
