"""Environments and captioners as a user would write them: the README shows these files word for word."""
